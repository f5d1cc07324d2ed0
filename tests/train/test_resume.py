"""What `rlhf resume` refuses, and what it takes up."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf_platform.errors import RecipeError, RunError
from rlhf_platform.recipe.load import LoadedRecipe, load_recipe
from rlhf_platform.tracking.checkpoints import Checkpoints
from rlhf_platform.tracking.run_dir import RunDir
from rlhf_platform.train.resume import Load, reopen

RECIPE = "name: a\nsteps: 4\ndata: {demo: digits}\nrewards: [{fn: rewards.asr:wer_reward}]\n"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that was killed in step 4, with a checkpoint after step 2."""
    (tmp_path / "r.yaml").write_text(RECIPE)
    folder = RunDir.create(tmp_path, "a", 4)
    loaded = load_recipe(tmp_path / "r.yaml")
    folder.write("recipe.yaml", loaded.yaml)
    for step in (1, 2, 3):
        folder.step(step, {"kl": 0.1 * step}, [f"p{step}"])
    folder.status(step=3)
    with (folder.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "k')
    with Checkpoints(folder.path).writing(2, 0.0) as draft:
        (draft / "recipe.yaml").write_text(loaded.yaml)
    folder.release()
    return folder.path


def loading(*overrides: str) -> Load:
    def load(path: Path) -> LoadedRecipe:
        return load_recipe(path, overrides)

    return load


def test_what_came_after_the_checkpoint_is_taken_out(run: Path) -> None:
    loaded, folder, checkpoint = reopen(run, run.parent, loading())
    assert (loaded.recipe.name, checkpoint.step) == ("a", 2)
    assert [row["step"] for row in folder.history()] == [1, 2]
    assert len((run / "prompts.jsonl").read_text().splitlines()) == 2


def test_a_key_that_may_change_changes_and_stays_changed(run: Path) -> None:
    overrides = ["cluster.step_timeout=9", "monitors=[{metric: kl, above: 1}]", "steps=6"]
    loaded, folder, _ = reopen(Path("a"), run.parent, loading(*overrides))
    assert (loaded.recipe.cluster.step_timeout, loaded.recipe.steps) == (9, 6)
    assert load_recipe(folder.path / "recipe.yaml").recipe == loaded.recipe


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["seed=1"], "seed was 0, is 1: the run was begun with the first"),
        (["rewards=[{fn: 'a:b'}]"], "rewards was "),
        (["algorithm.type=dapo"], "algorithm.type was 'grpo', is 'dapo'"),
        (["steps=1"], "steps is 1: the run has taken 2; raise it"),
        (
            ["steps=9", "learner.schedule=linear"],
            "steps was 4, is 9: the run was begun with the first; learner.schedule=linear falls to 0 at the last step",
        ),
    ],
)
def test_a_key_that_decides_what_is_learnt_may_not_change(run: Path, overrides: list[str], said: str) -> None:
    before = (run / "metrics.jsonl").read_text()
    with pytest.raises(RecipeError) as raised:
        reopen(run, run.parent, loading(*overrides))
    assert str(raised.value).startswith(said)
    assert (run / "metrics.jsonl").read_text() == before


def test_a_recipe_that_was_edited_in_the_folder_is_found_out(run: Path) -> None:
    text = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(text.replace("group_size: 8", "group_size: 4"))
    with pytest.raises(RecipeError, match=r"algorithm\.group_size was 8, is 4"):
        reopen(run, run.parent, loading())


def test_a_run_without_a_checkpoint_or_that_has_finished_is_refused(run: Path) -> None:
    (run / "checkpoints/step-00002/recipe.yaml").unlink()
    with pytest.raises(RunError, match=r"no sound checkpoint \(.*recipe.yaml is missing\); start anew: rlhf run .*"):
        reopen(run, run.parent, loading())
    (run / "status.json").write_text('{"state": "finished"}')
    with pytest.raises(RunError, match="it has finished"):
        reopen(run, run.parent, loading())
    with pytest.raises(RunError, match="no run"):
        reopen(Path("b"), run.parent, loading())


def test_a_run_that_still_runs_is_refused_and_let_go_when_its_process_ends(run: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from rlhf_platform.tracking.run_dir import RunDir\n"
        f"run = RunDir(Path({str(run)!r}), {{}}); run.status(); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=rf"still run by process {holder.pid} on {os.uname().nodename}"):
            reopen(run, run.parent, loading())
        holder.kill()
    reopen(run, run.parent, loading())


def test_a_run_that_still_runs_is_refused_before_its_checkpoints_are_read(run: Path) -> None:
    """It removes some of them meanwhile."""
    holder = RunDir.reopen(run)
    (run / "checkpoints/step-00002/recipe.yaml").unlink()
    with pytest.raises(RunError, match="still run by process"):
        reopen(run, run.parent, loading())
    holder.release()


def test_a_folder_that_cannot_be_made_is_refused_by_its_key(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"^runs_dir is '.*/file': Not a directory; name a folder that can be written$"):
        RunDir.create(tmp_path / "file", "a", 1)
