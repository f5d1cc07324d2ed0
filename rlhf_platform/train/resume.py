"""Going on with a run that was interrupted, killed or stopped."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from rlhf_platform.errors import RecipeError, RunError
from rlhf_platform.recipe.load import LoadedRecipe
from rlhf_platform.recipe.resume import refused_changes
from rlhf_platform.tracking.checkpoints import Checkpoint, Checkpoints
from rlhf_platform.tracking.history import find_run
from rlhf_platform.tracking.run_dir import RunDir, portable
from rlhf_platform.train.run import carry_out

Load = Callable[[Path], LoadedRecipe]
"""Reads and checks the recipe that it is given."""


def resume(named: Path, parent: Path, load: Load) -> Path:
    """Go on with a run, named by its folder or its name below `parent`; returns the folder. Raises as `reopen`."""
    return carry_out(*reopen(named, parent, load))


def reopen(named: Path, parent: Path, load: Load) -> tuple[LoadedRecipe, RunDir, Checkpoint]:
    """The run's recipe, its folder with all that came after its newest sound checkpoint taken out, and that checkpoint.

    Raises RunError when there is nothing to go on from, RecipeError when the recipe was changed where it may not; the
    folder is then as it was.
    """
    run = find_run(named, parent)
    folder = run.path.resolve()
    if run.status.get("state") == "finished":
        raise RunError(f"{run.path}: it has finished; to train further, start a run from {run.path / 'checkpoint'}")
    # Held before its checkpoints are read: a run that still runs removes some of them.
    run_dir = RunDir.reopen(folder)
    with ExitStack() as stack:
        stack.callback(run_dir.release)
        checkpoints = Checkpoints(folder)
        checkpoint = _newest(checkpoints, run.path)
        loaded = load(folder / "recipe.yaml")
        _refuse(refused_changes(checkpoint.recipe_yaml, portable(loaded.yaml, folder), loaded.recipe), checkpoint.path)
        if checkpoint.step > loaded.recipe.steps:
            raise RecipeError(f"steps is {loaded.recipe.steps}: the run has taken {checkpoint.step}; raise it")
        run_dir.rewind(checkpoint.step, loaded.recipe.steps)
        checkpoints.forget_unfinished()
        run_dir.write("recipe.yaml", portable(loaded.yaml, folder))
        stack.pop_all()
    return loaded, run_dir, checkpoint


def _newest(checkpoints: Checkpoints, run: Path) -> Checkpoint:
    checkpoint, damaged = checkpoints.newest_sound()
    if checkpoint is None:
        reason = "; ".join(damaged) or "the run ended before its first"
        raise RunError(f"{run}: no sound checkpoint ({reason}); start anew: rlhf run {run / 'recipe.yaml'}")
    return checkpoint


def _refuse(changes: Sequence[str], checkpoint: Path) -> None:
    if changes:
        what = "a run goes on with the recipe it was begun with; docs/recipe_keys.md marks the keys that may change"
        raise RecipeError("\n".join([*changes, f"{checkpoint}: {what}"]))
