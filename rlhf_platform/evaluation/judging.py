"""How good each utterance is: what a reward function says of it, or a score that the evaluation wrote down."""

from collections.abc import Callable

from rewards.pool import RewardPool
from rewards.types import RewardInput
from rlhf_platform.data.audio import load_audio
from rlhf_platform.errors import DataError
from rlhf_platform.evaluation.utterances import System, Utterance
from rlhf_platform.types import Failed, StopReason

_TOGETHER = 64
"""Utterances whose sound is in memory at a time."""


def by_score(name: str, system: str, said: System) -> dict[str, float]:
    """The score of each utterance that has it. Raises `DataError` when none has."""
    found = {prompt: utterance.scores[name] for prompt, utterance in said.items() if name in utterance.scores}
    if not found:
        there = ", ".join(sorted({score for utterance in said.values() for score in utterance.scores})) or "no scores"
        raise DataError(f"--score is {name!r}: no utterance of {system} has it; it has {there}")
    return found


def by_judge(
    judge: RewardPool, said: System, progress: Callable[[int, int], None] = lambda done, total: None
) -> tuple[dict[str, float], list[Failed]]:
    """The answer of a reward function to each utterance that decoded and ended, and its failures, which have no number.

    As in a run, an answer of several numbers counts as their sum.
    """
    heard = [utterance for utterance in said.values() if utterance.whole]
    found: dict[str, float] = {}
    failed: list[Failed] = []
    for start in range(0, len(heard), _TOGETHER):
        some = heard[start : start + _TOGETHER]
        for utterance, answer in zip(some, judge.call([_asked(each) for each in some]), strict=True):
            if isinstance(answer, Failed):
                failed.append(answer)
            else:
                found[utterance.prompt_id] = answer if isinstance(answer, float) else sum(answer.values())
        progress(start + len(some), len(heard))
    return found, failed


def _asked(utterance: Utterance) -> RewardInput:
    assert utterance.wav is not None
    return RewardInput(
        prompt_id=utterance.prompt_id,
        text="",
        tokens=utterance.tokens or (),
        reference=utterance.text,
        language=utterance.language,
        audio=str(utterance.reference),
        stop_reason=StopReason.EOS,
        speech=load_audio(utterance.wav),
        metadata=utterance.metadata,
    )
