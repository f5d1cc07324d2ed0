"""A reward of one's own, as an example: copy it, change it, name it in a recipe (docs/rewards.md)."""

from rewards.types import RewardInput


def brevity(sample: RewardInput, words_per_second: float = 5.0) -> float:
    """A penalty in [-1, 0] for saying more than fits into the clip; needs no reference.

    0 up to `duration * words_per_second` words, falling in a line to -1 at twice as many. Against repeats and
    inventions; 5 words a second is fast English speech. Raises `ValueError` for a clip of unknown length:
    that sample has no reward, rather than a guessed one.
    """
    if sample.duration <= 0:
        raise ValueError(f"prompt {sample.prompt_id} has no duration: add it to the manifest")
    fits = max(1.0, sample.duration * words_per_second)
    return -min(max(len(sample.text.split()) / fits - 1.0, 0.0), 1.0)
