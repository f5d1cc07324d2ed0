"""The command: exit codes, one line per mistake, no traceback, no torch."""

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from rlhf_platform.cli.main import app
from rlhf_platform.recipe.load import LoadedRecipe, load_recipe

ROOT = Path(__file__).parents[2]
QUICKSTART = str(ROOT / "recipes/asr/quickstart.yaml")
RECIPES = [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("recipes/asr/**/*.yaml"))]


@pytest.fixture(autouse=True)
def _local_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def rlhf(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rlhf_platform.cli.main", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_of_the_repository_is_valid(recipe: str) -> None:
    result = CliRunner().invoke(app, ["validate", str(ROOT / recipe)])
    assert result.exit_code == 0, result.stderr


def test_a_mistake_is_plain_lines_on_stderr_and_exit_code_2() -> None:
    result = rlhf("validate", "recipes/asr/quickstart.yaml", "learner.cpu=2", "steps=x")
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "learner.cpu: unknown key; did you mean learner.cpus? (on the command line)",
        "steps is 'x': expected a whole number (on the command line)",
    ]


def test_validate_imports_no_torch_ray_vllm_or_transformers() -> None:
    program = (
        "import sys; from typer.testing import CliRunner; from rlhf_platform.cli.main import app\n"
        f"result = CliRunner().invoke(app, ['validate', {QUICKSTART!r}])\n"
        "assert result.exit_code == 0, result.output\n"
        "print([name for name in ('torch', 'ray', 'vllm', 'transformers') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (result.stdout.strip(), result.stderr) == ("[]", "")


def test_show_prints_a_recipe_that_loads_again_and_says_where_each_value_is_from(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["show", QUICKSTART, "seed=7"])
    assert result.exit_code == 0
    assert re.search(r"^name: asr-quickstart +# .*recipes/asr/quickstart.yaml:\d+$", result.stdout, re.MULTILINE)
    assert re.search(r"^seed: 7 +# command line$", result.stdout, re.MULTILINE)
    assert re.search(r"^  zero_stage: 0 +# default$", result.stdout, re.MULTILINE)
    (tmp_path / "shown.yaml").write_text(result.stdout)
    assert load_recipe(tmp_path / "shown.yaml").recipe == load_recipe(QUICKSTART, ["seed=7"]).recipe
    changed = CliRunner().invoke(app, ["show", QUICKSTART, "--changed"]).stdout
    assert "default" not in changed
    (tmp_path / "changed.yaml").write_text(changed)
    assert load_recipe(tmp_path / "changed.yaml").recipe == load_recipe(QUICKSTART).recipe


def run_with(train: object, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> tuple[int, str]:
    """`rlhf run` with `train` in place of the training loop."""
    module = ModuleType("rlhf_platform.train.run")
    module.run = train  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rlhf_platform.train.run", module)
    result = CliRunner().invoke(app, ["run", QUICKSTART, *overrides])
    return result.exit_code, result.stderr


def test_run_hands_the_checked_recipe_to_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[LoadedRecipe] = []
    assert run_with(given.append, monkeypatch, "steps=3") == (0, "")
    assert [loaded.recipe.steps for loaded in given] == [3]


def test_run_starts_nothing_when_the_recipe_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[LoadedRecipe] = []
    code, message = run_with(given.append, monkeypatch, "rollout.top_p=0.5")
    assert (code, given) == (2, [])
    assert message.startswith("rollout.top_p is 0.5: ")


def test_an_interrupt_is_one_line_and_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(loaded: LoadedRecipe) -> None:
        raise KeyboardInterrupt

    assert run_with(interrupted, monkeypatch) == (130, "interrupted\n")


def test_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout.startswith("rlhf-platform ")


def commands(group: Any = None, names: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every command of the application, a subcommand as two words."""
    inner = getattr(group or typer.main.get_command(app), "commands", {})
    return [found for name, command in inner.items() for found in commands(command, (*names, name))] or [names]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_has_an_example_in_its_help_and_a_page(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert f"Example: rlhf {' '.join(command)} " in " ".join(result.stdout.split()) + " "
    page = (ROOT / "docs" / "commands" / f"{command[0]}.md").read_text()
    assert page.startswith(f"# rlhf {command[0]}\n")
    assert f"(commands/{command[0]}.md)" in (ROOT / "docs" / "README.md").read_text()


def test_a_demo_set_that_does_not_exist_and_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    runner = CliRunner()
    unknown = runner.invoke(app, ["data", "build", "digit", "--out", str(tmp_path / "d")])
    assert unknown.exit_code == 2
    assert "did you mean 'digits'?" in unknown.stderr
    (tmp_path / "file").touch()
    inside_a_file = runner.invoke(app, ["data", "build", "digits", "--out", str(tmp_path / "file/d")])
    assert inside_a_file.exit_code == 2
    assert inside_a_file.stderr.startswith(f"--out is '{tmp_path}/file/d': ")
    assert inside_a_file.stderr.endswith("; name a folder that can be written\n")


def test_a_missing_manifest_is_exit_code_2(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["data", "check", str(tmp_path / "m.jsonl"), "--window", "4"])
    assert result.exit_code == 2
    assert "no such manifest" in result.stderr
    assert "Traceback" not in result.stderr
