"""What a judge is told, and what it says. Plain records; no torch, no Ray."""

from dataclasses import dataclass

from rlhf_platform.errors import RewardError
from rlhf_platform.types import Failed

LOWEST, HIGHEST = -2, 2
"""Levels of a pairwise verdict, seen from the candidate: much worse (-2), worse, the same (0), better, much better."""


@dataclass(frozen=True)
class Verdict:
    """A judge's word on a candidate against another reply."""

    level: float
    """Mean over votes and orders, in [-2, 2]."""
    votes: tuple[int, ...]
    """Each in -2..2, seen from the candidate: all with the candidate shown first, then all with it shown second."""
    abstained: bool
    """The two orders contradict each other, or too few votes agree."""
    reasoning: str = ""
    """What the judge wrote before its first verdict."""
    prompt_tokens: int = 0
    """Tokens that were paid for; those of a cached answer are not."""
    completion_tokens: int = 0
    cached: bool = False
    """Nothing was asked: every answer was remembered."""


@dataclass(frozen=True)
class Exchange:
    """What a judge is told of a dialogue, up to the reply that it judges."""

    persona: str
    history: tuple[tuple[str, str], ...]
    """(role, text), oldest first; a role is `user` or `assistant`."""
    said: str
    """The user's latest turn."""
    clips: tuple[str, ...] = ()
    """Paths of the user turns' audio, oldest first, for a judge that hears."""


class JudgeFailure(RewardError):
    """A judge that gave no verdict. `kind`: as of a reward that did not come out (`rlhf_platform.types`)."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message

    def failed(self) -> Failed:
        """The same as a reward's outcome."""
        return Failed(self.kind, self.message)
