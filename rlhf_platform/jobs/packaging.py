"""The folder that becomes Ray's working directory: the platform's own packages, the recipe, its reward files."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import rlhf_platform
from rlhf_platform.errors import RecipeError
from rlhf_platform.recipe.files import RecipeFiles

PACKAGES = ("rlhf_platform", "policies", "rollout", "rewards", "recipes")
"""They lie side by side, in a clone as in an installation."""
RECIPE = "job/recipe.yaml"
"""In the staged folder."""
LIMIT = 64 * 2**20
"""Bytes of all files. Ours are about 13 MiB; more is data that was put among them."""

_LEFT_OUT = {"__pycache__", "tests", "runs", "wandb"}
_CHECKPOINTS = ("recipes", ".safetensors")
"""Weights that come with recipes: a job's recipe names its backbone where all machines see it, and not these copies."""


def stage(files: RecipeFiles, folder: Path) -> None:
    """Fill the empty `folder`. Raises `RecipeError` when it would be more than `LIMIT`."""
    root = Path(rlhf_platform.__file__).parents[1]
    sources = {path: root / path for package in PACKAGES for path in _files(root, package)}
    sources |= {f"job/{path}": file for path, file in files.rewards.items()}
    sizes = {path: source.stat().st_size for path, source in sources.items()}
    total = sum(sizes.values())
    if total > LIMIT:
        largest = max(sizes, key=lambda path: sizes[path])
        raise RecipeError(
            f"the job's files take {total / 2**20:.0f} MiB, allowed {LIMIT / 2**20:g}; the largest is "
            f"{sources[largest]}: keep data out of the packages, where all machines see it"
        )
    for path, source in sources.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    recipe = folder / RECIPE
    recipe.parent.mkdir(exist_ok=True)
    recipe.write_text(files.recipe, "utf-8")


def _files(root: Path, package: str) -> Iterator[str]:
    """Paths of a package's files relative to `root`, without what running and testing leave behind."""
    for folder, names, files in os.walk(root / package):
        names[:] = [name for name in sorted(names) if name not in _LEFT_OUT and not name.startswith(".")]
        for name in sorted(files):
            weights = package == _CHECKPOINTS[0] and name.endswith(_CHECKPOINTS[1])
            if not (name.startswith(".") or name.endswith(".pyc") or weights):
                yield os.path.relpath(os.path.join(folder, name), root)
