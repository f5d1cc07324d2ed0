"""Criteria that a function decides, for `fn` in a rubric: they get the sample, and give the level."""

from rewards.types import RewardInput
from rlhf_platform.data.dialogue import split_reply


def brevity(sample: RewardInput, *, words: int = 12) -> int:
    """3 for a reply of at most `words` words, 2 for twice as many, else 1. An empty one is 1."""
    count = len(split_reply(sample.text)[1].split())
    return 1 if not count or count > 2 * words else 2 if count > words else 3
