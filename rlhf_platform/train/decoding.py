"""What the policy says to held-out clips, those longer than its window included."""

from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

from rlhf_platform.evaluation.long_form import by_prompt, cut, stitch
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.train.team import Rollouts
from rlhf_platform.types import Prompt, Sample, StopReason


def decode(rollouts: Rollouts, prompts: Sequence[Prompt], recipe: Recipe) -> list[Sample]:
    """The policy's answer to each held-out prompt, in order; the most likely one unless `evaluation.temperature` says.

    To a clip that was cut it is one sample of the whole clip: texts and tokens of its pieces in a row. Without a piece,
    as no speech was found, text and tokens are empty and no model was asked.
    """
    parts = parts_of(prompts, recipe)
    pieces = list(chain.from_iterable(parts))
    answers = rollouts.answer(pieces) if pieces else []
    texts = stitch(prompts, parts, [answer.text for answer in answers])
    version = answers[0].weight_version if answers else 0
    return [
        own[0] if part == [prompt] else _whole(prompt, own, text, version)
        for prompt, part, own, text in zip(prompts, parts, by_prompt(parts, answers), texts, strict=True)
    ]


def parts_of(
    prompts: Sequence[Prompt], recipe: Recipe, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[list[Prompt]]:
    """Of each held-out prompt what is decoded in its place, as `evaluation.long_form` says (`long_form.cut`)."""
    if recipe.evaluation.long_form == "none":
        return [[prompt] for prompt in prompts]
    return cut(prompts, recipe.backbone.window, Path(recipe.cache_dir, "pieces"), progress)


def _whole(prompt: Prompt, answers: Sequence[Sample], text: str, version: int) -> Sample:
    """One sample of the answers to a clip's pieces. It ends once, so only the last end token stays."""
    last = len(answers) - 1
    kept = [
        slice(-1) if number < last and answer.stop_reason is StopReason.EOS else slice(None)
        for number, answer in enumerate(answers)
    ]
    cut_off = any(answer.stop_reason is StopReason.LENGTH for answer in answers)
    return Sample(
        prompt=prompt,
        tokens=tuple(chain.from_iterable(a.tokens[k] for a, k in zip(answers, kept, strict=True))),
        logprobs=tuple(chain.from_iterable(a.logprobs[k] for a, k in zip(answers, kept, strict=True))),
        text=text,
        stop_reason=StopReason.LENGTH if cut_off else StopReason.EOS,
        weight_version=version,
    )
