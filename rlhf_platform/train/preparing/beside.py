"""Rows of the TTS branch that a warm start of another branch learns beside its own: `sft.beside`."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rlhf_platform.data.manifest import of_split, read_manifest, to_prompt
from rlhf_platform.errors import RecipeError
from rlhf_platform.learner.sft import Course
from rlhf_platform.recipe.load import load_recipe
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.tracking.progress import Display
from rlhf_platform.train.preparing.speech import speaking, with_codec
from rlhf_platform.types import Prompt


@dataclass(frozen=True)
class Beside:
    """What is learnt beside, and how it is spoken."""

    recipe: Recipe
    prompts: list[Prompt]
    digest: str
    """Of all that decides what is learnt from them."""

    def course(self, model: Path | str) -> Course:
        """The rows, in the form in which the checkpoint `model` speaks. Raises what `speaking` raises."""
        spoken = speaking(self.recipe, model, [prompt.reference for prompt in self.prompts])
        return Course(self.recipe.backbone.adapter, str(spoken), self.prompts)


def beside_of(recipe: Recipe, display: Display, manifest_of: Callable[[Recipe, Display], Path]) -> Beside | None:
    """The rows of `sft.beside` with their recordings as codec tokens; None where nothing is learnt beside.

    `manifest_of`: a recipe's manifest, built if need be. Raises RecipeError for a recipe that cannot be learnt beside
    this one, DataError for its data.
    """
    if recipe.sft.beside is None or not recipe.sft.steps:
        return None
    other = replace(load_recipe(Path(recipe.sft.beside), []).recipe, cache_dir=recipe.cache_dir)
    if other.branch != "tts" or other.backbone.adapter != recipe.backbone.adapter:
        raise RecipeError(
            f"sft.beside is {recipe.sft.beside}: its branch is {other.branch} and its backbone.adapter "
            f"{other.backbone.adapter}; name a recipe of branch tts whose backbone.adapter is {recipe.backbone.adapter}"
        )
    path = manifest_of(other, display)
    rows = of_split(read_manifest(path), other.data.train_split)
    with display.phase("encode recordings to learn beside", len(rows)) as phase:
        prompts = with_codec(other, [to_prompt(row) for row in rows], phase.update)
    decides = repr([other.data.train_split, asdict(other.speech)])
    content = hashlib.sha256(path.read_bytes() + decides.encode()).hexdigest()
    return Beside(other, prompts, content)
