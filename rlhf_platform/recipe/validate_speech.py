"""Whether the keys of a recipe that speaks fit each other, and what its branch does not read is left out. Imports no
torch.
"""

from collections.abc import Iterator
from pathlib import Path

from rlhf_platform.recipe.preferences import MakePairs
from rlhf_platform.recipe.schema import EvaluationConfig, Recipe
from rlhf_platform.recipe.speech import CODEBOOKS_OF_CHOICE, WORLD_CODEBOOKS, SpeechConfig

SPEAKS = ("qwen3_asr", "codec_lm", "orpheus")
"""Layouts that write codec tokens."""

LEARNT = tuple(f"rewards.tts:{name}" for name in ("phonemes", "whisper_cer", "mos", "similarity"))
"""Scorers that are models."""


def speech(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """The key that is to be changed, and what is wrong with its value; as the checks of `recipe.validate`."""
    if recipe.branch == "tts":
        yield from _speaks(recipe)
        yield from _codec(recipe)
        yield from _heard(recipe)
    else:
        for name in vars(SpeechConfig()):
            if getattr(recipe.speech, name) != getattr(SpeechConfig(), name):
                yield f"speech.{name}", f"it has no effect with branch={recipe.branch}, which writes text; leave it out"


def beside(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """What is spoken is learnt beside what is heard, in the stage that teaches the whole policy."""
    if recipe.align.beside is not None:
        yield "align.beside", "align teaches the adaptor, which speech does without; name it in sft.beside"
    if recipe.sft.beside is None:
        return
    if not Path(recipe.sft.beside).is_file():
        yield "sft.beside", "no such recipe; a path is relative to the file that names it"
    if not recipe.sft.steps:
        yield "sft.beside", "it has no effect with sft.steps=0; leave it out"
    if recipe.branch == "tts":
        yield "sft.beside", "it is for branches that hear; name this recipe there instead"
    elif recipe.backbone.adapter != "qwen3_asr":
        yield (
            "sft.beside",
            f"backbone.adapter={recipe.backbone.adapter} does not do both; take qwen3_asr, or leave it out",
        )


def pairs(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """What makes pairs trains nothing."""
    if isinstance(recipe.algorithm, MakePairs) and recipe.steps:
        yield "steps", "algorithm.type=pairs takes no optimiser step; set it to 0"


def _speaks(recipe: Recipe) -> Iterator[tuple[str, str]]:
    backbone, speech = recipe.backbone, recipe.speech
    if backbone.adapter not in SPEAKS:
        yield "backbone.adapter", f"it writes no speech; branch=tts takes one of {', '.join(SPEAKS)}"
    if speech.shortest >= speech.longest:
        yield "speech.shortest", f"speech.longest={speech.longest:g} is not above it; lower it"
    slots, entries = backbone.tiny.audio_slots, sum(WORLD_CODEBOOKS[: speech.codebooks])
    if backbone.path is None and backbone.build == "tiny" and speech.codec == "world" and slots < entries:
        said = f"speech.codec=world has {entries} entries, each a token; raise it to {entries}"
        yield "backbone.tiny.audio_slots", said
    if recipe.rollout.speculative != "none":
        yield "rollout.speculative", "drafting heads guess text; with branch=tts set it to none"
    if recipe.align.steps:
        yield "align.steps", "branch=tts leaves the adaptor out, there is nothing to align; set it to 0"
    if recipe.sft.spec_augment:
        yield "sft.spec_augment", "branch=tts hears no clip to mask; set it to false"


def _codec(recipe: Recipe) -> Iterator[tuple[str, str]]:
    speech = recipe.speech
    if speech.codec == "world" and speech.codec_path is not None:
        yield "speech.codec_path", "speech.codec=world comes with the platform and reads none; leave it out"
    if speech.codec != "world" and speech.codec_path is None:
        yield "speech.codec_path", f"speech.codec={speech.codec} is read from a checkpoint; name its folder or hub name"
    if speech.codebooks is not None and speech.codec not in CODEBOOKS_OF_CHOICE:
        fits = ", ".join(CODEBOOKS_OF_CHOICE)
        yield "speech.codebooks", f"speech.codec={speech.codec} has a fixed number ({fits} have a choice); leave it out"


def _heard(recipe: Recipe) -> Iterator[tuple[str, str]]:
    plain = EvaluationConfig()
    if not recipe.evaluation.rewards:
        yield "evaluation.rewards", "with branch=tts they are all that is measured; name at least one (docs/tts.md)"
    training = {reward.fn: index for index, reward in enumerate(recipe.rewards) if reward.weight}
    for index, reward in enumerate(recipe.evaluation.rewards):
        if reward.fn in LEARNT and reward.weight and reward.fn in training:
            yield (
                f"evaluation.rewards[{index}].fn",
                f"rewards[{training[reward.fn]}] trains on it, and what is trained to please a model is not measured "
                "by it; name another family, or set its weight to 0",
            )
    for name in ("normalizer", "long_form"):
        if getattr(recipe.evaluation, name) != getattr(plain, name):
            yield f"evaluation.{name}", "it is of transcripts; with branch=tts leave it out"
    if recipe.checkpoint.best_by == "heldout_wer":
        yield "checkpoint.best_by", "branch=tts has no held-out WER; set it to reward"
