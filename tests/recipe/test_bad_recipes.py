"""A folder of recipes that are wrong, one mistake each, and the exact words that `rlhf validate` has for it.

Each file's `#> ` lines are what stands on stderr. `{here}` is the folder, `{machine}` what depends on the machine.
"""

import re
import shutil
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlhf_platform.cli.main import app

BAD = sorted((Path(__file__).parent / "bad").glob("*.yaml"))
SECRET = "not-to-be-shown"
HEAVY = ("torch", "ray", "vllm", "transformers", "deepspeed")


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(BAD[0].parent, tmp_path_factory.mktemp("recipes"), dirs_exist_ok=True))


@pytest.fixture
def here(copied: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(copied)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RLHF_TEST_SECRET", SECRET)
    return copied


def refusal(recipe: str) -> list[str]:
    """The lines of stderr; checks that it is a plain refusal."""
    loaded = {name for name in HEAVY if name in sys.modules}
    result = CliRunner().invoke(app, ["validate", recipe])
    assert result.exit_code == 2
    assert SECRET not in result.stderr
    assert (result.stdout, isinstance(result.exception, SystemExit)) == ("", True)
    assert {name for name in HEAVY if name in sys.modules} == loaded, "a refusal loads nothing heavy"
    return result.stderr.splitlines()


@pytest.mark.parametrize("recipe", BAD, ids=lambda path: path.stem)
def test_a_bad_recipe_gets_exactly_these_words(recipe: Path, here: Path) -> None:
    expected = [line.removeprefix("#> ").rstrip("\n") for line in recipe.open() if line.startswith("#> ")]
    assert expected, "say in #> lines what is expected"
    said = [re.sub(r"[\d.]+ GiB; allowed below [\d.]+", "{machine}", line) for line in refusal(recipe.name)]
    assert [line.replace(str(here), "{here}") for line in said] == expected
