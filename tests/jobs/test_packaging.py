"""What goes along with a job: packages, the recipe in one file, reward files; and what does not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rlhf_platform.errors import RecipeError
from rlhf_platform.jobs import packaging
from rlhf_platform.jobs.packaging import PACKAGES, RECIPE, stage
from rlhf_platform.recipe import files as files_module
from rlhf_platform.recipe.files import RecipeFiles, recipe_files
from rlhf_platform.recipe.load import load_recipe

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "recipes/asr/quickstart.yaml"


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder, outside the project: a recipe, a reward, a file that it imports, and much else."""
    folder = tmp_path / "user"
    folder.mkdir()
    (folder / "mine.py").write_text("from near import ONE\n\n\ndef f(sample, key=''):\n    return ONE\n")
    (folder / "near.py").write_text("ONE = 1\n")
    (folder / "secrets.txt").write_text("hunter2")
    (folder / "my.yaml").write_text(
        f"extends: {QUICKSTART}\nname: mine\nrewards:\n"
        "  - fn: rewards.asr:wer_reward\n"
        "  - {fn: mine.py:f, kwargs: {key: '${oc.env:MY_KEY}'}}\n"
        f"evaluation: {{rewards: [{{fn: '{ROOT}/recipes/asr/my_rewards.py:brevity'}}]}}\n"
    )
    monkeypatch.setenv("MY_KEY", "hunter2")
    return folder


def of(folder: Path, *overrides: str) -> RecipeFiles:
    return recipe_files(load_recipe(folder / "my.yaml", [*overrides, "cluster.address=auto"]), folder)


def staged(files: RecipeFiles, folder: Path) -> set[str]:
    stage(files, folder)
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_platform_the_recipe_and_the_rewards_with_their_neighbours_go_along(user: Path, tmp_path: Path) -> None:
    names = staged(of(user), tmp_path / "staged")
    job = {name for name in names if name.startswith("job/")}
    assert {"job/recipe.yaml", "job/rewards/0/mine.py", "job/rewards/0/near.py", "job/rewards/1/my_rewards.py"} == job
    assert {name.partition("/")[0] for name in names} == {*PACKAGES, "job"}
    assert {"rlhf_platform/cli/main.py", "policies/vllm_plugin.py", "recipes/speech/prompts/prompts.zip"} <= names
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc") or "/tests/" in name]
    assert sum((tmp_path / "staged" / name).stat().st_size for name in names) < 16 * 2**20


def test_a_secret_s_name_goes_along_and_its_value_does_not(user: Path, tmp_path: Path) -> None:
    files = of(user)
    assert files.variables == ("MY_KEY",)
    for name in staged(files, tmp_path / "staged"):
        assert b"hunter2" not in (tmp_path / "staged" / name).read_bytes(), name


def test_the_staged_recipe_runs_as_the_one_it_is_made_from(user: Path, tmp_path: Path) -> None:
    stage(of(user, "steps=7"), tmp_path / "staged")
    before = load_recipe(user / "my.yaml", ["steps=7", "cluster.address=auto"]).recipe
    after = load_recipe(tmp_path / "staged" / RECIPE).recipe
    job = tmp_path / "staged" / "job"
    assert [reward.fn for reward in after.rewards] == ["rewards.asr:wer_reward", f"{job}/rewards/0/mine.py:f"]
    assert after.evaluation.rewards[0].fn == f"{job}/rewards/1/my_rewards.py:brevity"
    assert (after.runs_dir, after.cache_dir) == (f"{user}/runs", f"{user}/.cache")
    for recipe in (before, after):
        recipe.rewards, recipe.evaluation.rewards, recipe.runs_dir, recipe.cache_dir = [], [], "", ""
    assert after == before


def test_the_staged_folder_checks_its_recipe_by_its_own_code_from_its_own_reward_files(
    user: Path, tmp_path: Path
) -> None:
    stage(of(user), tmp_path / "staged")
    (user / "mine.py").unlink()
    program = "import rlhf_platform.cli.main as m, sys; print(m.__file__); m.app(['validate', 'job/recipe.yaml'])"
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path / "staged",
        env={"PATH": os.environ["PATH"], "MY_KEY": "x"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(f"{tmp_path}/staged/rlhf_platform/cli/main.py\njob/recipe.yaml: valid; ")


def test_paths_that_are_absolute_already_are_kept_as_they_are_written(
    user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    files = of(user, 'runs_dir="${oc.env:SCRATCH}/runs"', "cache_dir=/data/cache")
    assert (files.runs_dir, files.cache_dir) == ("${oc.env:SCRATCH}/runs", "/data/cache")


def test_manifest_and_checkpoint_are_named_and_left_where_they_are(user: Path) -> None:
    (user / "clips.jsonl").touch()
    (user / "model").mkdir()
    overrides = (f"data.manifest={user}/clips.jsonl", f"backbone.path={user}/model")
    files = of(user, "data.demo=null", *overrides)
    assert dict(files.elsewhere) == {"data.manifest": f"{user}/clips.jsonl", "backbone.path": f"{user}/model"}
    assert dict(of(user, "backbone.path=owner/model").elsewhere) == {}
    assert dict(of(user, "backbone.path=owner/model", "sft.beside=/data/tts.yaml").elsewhere) == {
        "sft.beside": "/data/tts.yaml"
    }


def test_the_digest_tells_versions_of_recipe_and_reward_apart(user: Path) -> None:
    first = of(user).digest
    assert of(user).digest == first
    assert of(user, "steps=1").digest != first
    (user / "near.py").write_text("ONE = 2\n")
    assert of(user).digest != first


def test_too_much_is_refused_in_a_line(user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = of(user)
    monkeypatch.setattr(packaging, "LIMIT", 2**20)
    with pytest.raises(
        RecipeError, match=r"^the job's files take \d+ MiB, allowed 1; the largest is .*prompts.zip: keep"
    ):
        stage(files, tmp_path / "staged")
    monkeypatch.setattr(files_module, "REWARDS_LIMIT", 10)
    with pytest.raises(RecipeError, match=r"^rewards\[1\].fn is '.*mine.py:f': the 2 Python files beside it go along"):
        of(user)


def test_the_resolved_recipe_is_plain_yaml(user: Path) -> None:
    assert yaml.safe_load(of(user).recipe)["cluster"]["address"] == "auto"
