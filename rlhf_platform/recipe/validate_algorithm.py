"""Whether the keys of an offline algorithm fit each other and the rest of a recipe. Imports no torch."""

from collections.abc import Iterator
from pathlib import Path

from rlhf_platform.recipe.keys import nearest
from rlhf_platform.recipe.preferences import DPO, KTO, SMOOTHING, JudgedConfig, PreferenceConfig
from rlhf_platform.recipe.schema import Recipe

_READS_APART = ("whisper",)
"""Layouts whose decoder is fed apart from its encoder: TRL's preference trainers have no place for that."""


def offline(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """The key that is to be changed, and what is wrong with its value; as the checks of `recipe.validate`."""
    algorithm = recipe.algorithm
    yield from _pairs(recipe)
    if not isinstance(algorithm, JudgedConfig):
        return
    if isinstance(algorithm, PreferenceConfig) and recipe.backbone.adapter in _READS_APART:
        yield (
            "backbone.adapter",
            f"algorithm.type={algorithm.type} takes decoders that read audio among their tokens; take another backbone,"
            " or algorithm.type=online_dpo",
        )
    rounds = algorithm.rounds if isinstance(algorithm, PreferenceConfig) else 1
    if recipe.steps < rounds:
        yield "steps", f"algorithm.rounds={rounds} with an optimiser step each take at least {rounds}; raise it"
    yield from _batch(recipe, algorithm)
    if isinstance(algorithm, DPO):
        yield from _smoothing(algorithm)


def _pairs(recipe: Recipe) -> Iterator[tuple[str, str]]:
    pairs, algorithm = recipe.data.pairs, recipe.algorithm
    if pairs is not None and not isinstance(algorithm, JudgedConfig):
        said = f"algorithm.type={algorithm.type} learns from rewards and reads no pairs; set it to null, or take dpo"
        yield "data.pairs", said
    elif pairs is not None and not Path(pairs).is_file():
        near = nearest(Path(pairs).name, [path.name for path in Path(pairs).parent.glob("*.jsonl")])
        hint = f"did you mean {Path(pairs).parent / near}?" if near else "a path is relative to the file that names it"
        yield "data.pairs", f"no such file; {hint}"
    if pairs is None and isinstance(algorithm, JudgedConfig) and algorithm.pairs_per_round is not None:
        step = recipe.rollout.prompts_per_step
        if algorithm.pairs_per_round % step:
            fits = -(-algorithm.pairs_per_round // step) * step
            said = f"prompts are sampled rollout.prompts_per_step={step} at a time; allowed multiples of it, as {fits}"
            yield "algorithm.pairs_per_round", said


def _batch(recipe: Recipe, algorithm: JudgedConfig) -> Iterator[tuple[str, str]]:
    ranks, size = recipe.learner.workers, algorithm.batch_size
    if size % ranks:
        yield "algorithm.batch_size", f"not divisible over learner.workers={ranks}; allowed multiples of {ranks}"
    needs_two = isinstance(algorithm, KTO) and algorithm.loss_type == "kto"
    if needs_two and per_forward(size // ranks, recipe.learner.micro_batch_size) < 2:
        yield (
            "learner.micro_batch_size",
            f"with algorithm.batch_size={size} and learner.workers={ranks} an answer goes through alone, and KTO's KL "
            "needs two at a time; raise it, or take a batch that can be parted so",
        )


def per_forward(share: int, most: int) -> int:
    """How many of a rank's `share` of a batch go through the model at once: at most `most`, all forwards alike."""
    return max(n for n in range(1, max(1, min(share, most)) + 1) if share % n == 0 or n == 1)


def _smoothing(algorithm: DPO) -> Iterator[tuple[str, str]]:
    if algorithm.label_smoothing is None:
        return
    loss = f"algorithm.loss_type={algorithm.loss_type}"
    if algorithm.loss_type not in SMOOTHING:
        said = f"it has no effect with {loss}; set it to null, or take one of {', '.join(SMOOTHING)}"
        yield "algorithm.label_smoothing", said
    elif algorithm.loss_type == "exo_pair" and algorithm.label_smoothing == 0:
        yield "algorithm.label_smoothing", f"{loss} takes its logarithm; allowed above 0, published 0.001"
