"""What goes along with a recipe to another place: the recipe in one file, and the reward files that it names."""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from rlhf_platform.errors import RecipeError
from rlhf_platform.recipe.load import LoadedRecipe

REWARDS_LIMIT = 4 * 2**20
"""Bytes. Python files in one folder are far below; a home folder full of them is not what was meant."""

_VARIABLE = re.compile(r"\$\{oc\.env:([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True)
class RecipeFiles:
    """A recipe that runs elsewhere, beside its reward files."""

    name: str
    """The recipe's `name`."""
    recipe: str
    """All keys as YAML; reward files are relative to it, values from the environment stay `${oc.env:NAME}`."""
    rewards: Mapping[str, Path]
    """Each reward file and the Python files beside it: its path relative to the recipe, and where it lies here."""
    variables: tuple[str, ...]
    """Names that the recipe reads from the environment, those of tokens among them."""
    runs_dir: str
    cache_dir: str
    elsewhere: Mapping[str, str]
    """Paths by key that are not taken along: every machine has to see them."""

    @property
    def digest(self) -> str:
        """Of the recipe and its reward files: the same for two jobs that run the same."""
        digest = hashlib.sha256(self.recipe.encode())
        for path, file in sorted(self.rewards.items()):
            digest.update(path.encode() + b"\0" + file.read_bytes())
        return digest.hexdigest()[:12]


def recipe_files(loaded: LoadedRecipe, outputs: Path) -> RecipeFiles:
    """What a checked recipe needs elsewhere. `outputs`: what a relative `runs_dir` or `cache_dir` is relative to.

    Raises `RecipeError` when the Python files beside a reward are more than `REWARDS_LIMIT`.
    """
    tree = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.create(loaded.yaml), resolve=False))
    recipe = loaded.recipe
    for key in ("runs_dir", "cache_dir"):
        if not os.path.isabs(getattr(recipe, key)):  # maybe absolute by way of the environment
            tree[key] = os.path.normpath(outputs / tree[key])
    rewards: dict[str, Path] = {}
    folders: list[Path] = []
    evaluation = ("evaluation.rewards", recipe.evaluation.rewards, tree["evaluation"])
    for section, terms, holder in (("rewards", recipe.rewards, tree), evaluation):
        for index, term in enumerate(terms):
            source, _, function = term.fn.rpartition(":")
            if not source.endswith(".py"):
                continue
            file = loaded.base_dir / source
            if file.parent not in folders:
                folders.append(file.parent)
            target = f"rewards/{folders.index(file.parent)}"
            beside = _python_files(file, f"{section}[{index}].fn is {term.fn!r}")
            rewards |= {f"{target}/{path.name}": path for path in beside}
            holder["rewards"][index]["fn"] = f"{target}/{file.name}:{function}"
    text = OmegaConf.to_yaml(OmegaConf.create(tree))
    tokens = [term.token_env for term in (*recipe.rewards, *recipe.evaluation.rewards) if term.token_env]
    tokens += [judge.api_key_env for judge in recipe.judges if judge.api_key_env]
    data = {f"data.{name}": getattr(recipe.data, name) for name in ("manifest", "pairs", "labelled")}
    elsewhere = data | {"backbone.path": recipe.backbone.path, "gate": recipe.gate, "sft.beside": recipe.sft.beside}
    for index, judge in enumerate(recipe.judges):
        named = {"model": judge.model, "lora": judge.lora, "calibration.pairs": judge.calibration.pairs}
        elsewhere |= {f"judges[{index}].{key}": path for key, path in named.items()}
    return RecipeFiles(
        name=recipe.name,
        recipe=text,
        rewards=rewards,
        variables=tuple(dict.fromkeys([*_VARIABLE.findall(text), *tokens])),
        runs_dir=tree["runs_dir"],
        cache_dir=tree["cache_dir"],
        elsewhere={key: path for key, path in elsewhere.items() if path and os.path.isabs(path)},
    )


def _python_files(file: Path, key: str) -> list[Path]:
    """The file and its neighbours, which it may import."""
    found = sorted(path for path in file.parent.glob("*.py") if path.is_file())
    size = sum(path.stat().st_size for path in found)
    if size > REWARDS_LIMIT:
        raise RecipeError(
            f"{key}: the {len(found)} Python files beside it go along, {size / 2**20:.1f} MiB, allowed "
            f"{REWARDS_LIMIT / 2**20:g}; move it to a folder of its own"
        )
    return found
