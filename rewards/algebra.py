"""From the answers of all terms to one outcome per sample."""

import math
from collections.abc import Sequence

from rewards.answers import Answer
from rewards.plugin import RewardFunction
from rlhf_platform.types import Failed, Outcome, Scored


def weighted_sum(rewards: Sequence[RewardFunction], answers: Sequence[Answer]) -> Outcome:
    """The outcome of one sample: sum over terms of weight times answer, a dict counting as its sum.

    `answers`: one per reward, in their order. The first term that failed makes the sample `Failed` (law 2).
    `parts` holds each number before weighting, as `term`, or `term.part` for a dict.
    """
    parts: dict[str, float] = {}
    total = 0.0
    for reward, answer in zip(rewards, answers, strict=True):
        if isinstance(answer, Failed):
            return answer
        numbers = (
            {f"{reward.name}.{part}": number for part, number in answer.items()}
            if isinstance(answer, dict)
            else {reward.name: answer}
        )
        parts |= numbers
        total += reward.weight * sum(numbers.values())
        if not math.isfinite(total):
            message = f"weight {reward.weight:g} times the answer is beyond the range of a float"
            return Failed("not_a_number", message, reward.name)
    return Scored(total, parts)
