"""Going on with a run that was interrupted, killed or stopped."""

from collections.abc import Callable, Sequence
from pathlib import Path

from rlhf_platform.errors import RecipeError, RunError
from rlhf_platform.recipe.load import LoadedRecipe
from rlhf_platform.recipe.resume import refused_changes
from rlhf_platform.tracking.checkpoints import Checkpoints
from rlhf_platform.tracking.history import find_run
from rlhf_platform.tracking.run_dir import RunDir
from rlhf_platform.train.run import carry_out


def resume(named: Path, parent: Path, load: Callable[[Path], LoadedRecipe]) -> Path:
    """Go on from the newest sound checkpoint of a run; returns its folder.

    `named`: the folder, or its name below `parent`. `load`: reads and checks the recipe it is given. Raises RunError
    when there is nothing to go on from, RecipeError when the recipe was changed where it may not.
    """
    run = find_run(named, parent)
    folder = run.path.resolve()
    if run.status.get("state") == "finished":
        raise RunError(f"{run.path}: it has finished; to train further, start a run from {run.path / 'checkpoint'}")
    checkpoints = Checkpoints(folder)
    checkpoint, damaged = checkpoints.newest_sound()
    if checkpoint is None:
        reason = "; ".join(damaged) or "the run ended before its first"
        raise RunError(f"{run.path}: no sound checkpoint ({reason}); start anew: rlhf run {run.path / 'recipe.yaml'}")
    loaded = load(folder / "recipe.yaml")
    refuse(refused_changes(checkpoint.recipe_yaml, loaded.yaml, loaded.recipe), checkpoint.path)
    if checkpoint.step > loaded.recipe.steps:
        raise RecipeError(f"steps is {loaded.recipe.steps}: the run has taken {checkpoint.step}; raise it")
    run_dir = RunDir.reopen(folder, checkpoint.step, loaded.recipe.steps)
    checkpoints.forget_unfinished()
    run_dir.write("recipe.yaml", loaded.yaml)
    return carry_out(loaded, run_dir, checkpoint)


def refuse(changes: Sequence[str], checkpoint: Path) -> None:
    """Raises RecipeError when there are any."""
    if changes:
        what = "a run goes on with the recipe it was begun with; docs/recipe_keys.md marks the keys that may change"
        raise RecipeError("\n".join([*changes, f"{checkpoint}: {what}"]))
