"""Whether there is a reply at all, and whether it does what it was asked or excuses itself."""

from rewards.types import RewardInput
from rlhf_platform.data.dialogue import ANSWER, THINK, split_reply
from rlhf_platform.data.evasive import is_evasive
from rlhf_platform.data.text import reference_words, words


def closed(sample: RewardInput) -> float:
    """1 when the reasoning trace is closed, or there is none, and a reply follows; else 0.

    A reply has a word and no mark of a trace: what reasons again after its reply is not closed.
    """
    reply = split_reply(sample.text)[1]
    return float(bool(words(reply, sample.language)) and THINK not in reply and ANSWER not in reply)


def evasive(sample: RewardInput) -> float:
    """1 when the reply, without its trace, excuses itself from the task, as "I did not hear you"; else 0.

    Phrases: `rlhf_platform.data.evasive`. One that the reference has too is no excuse.
    """
    reply = words(split_reply(sample.text)[1], sample.language)
    return float(is_evasive(reply, reference_words(sample.reference, sample.language), sample.language))
