"""The folder of a new run."""

from pathlib import Path

from rlhf_platform.recipe.files import recipe_files
from rlhf_platform.recipe.load import LoadedRecipe, load_recipe
from rlhf_platform.tracking.run_dir import RunDir


def begin(loaded: LoadedRecipe, name: str, steps: int) -> tuple[LoadedRecipe, RunDir]:
    """A new folder that keeps the recipe and the reward files it names, and the recipe as it is there.

    What is edited elsewhere meanwhile changes nothing when the run goes on, and all machines that see the folder have
    the same rewards.
    """
    files = recipe_files(loaded, Path.cwd())
    folder = RunDir.create(Path(loaded.recipe.runs_dir), name, steps)
    folder.keep(files.rewards)
    folder.write("recipe.yaml", files.recipe)
    return load_recipe(folder.path / "recipe.yaml"), folder
