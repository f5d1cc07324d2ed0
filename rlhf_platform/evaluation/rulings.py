"""What a judge said of labelled pairs of replies, a record for each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from rewards.judge.verdict import mean
from rlhf_platform.data.labelled import Labelled
from rlhf_platform.types import Failed

A, B, TIE = "a", "b", "tie"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a judge said of a reply a against a reply b, order by order."""

    first: tuple[float, ...]
    """Levels with a shown first, from -2, a is much worse, to 2, a is much better: one a vote, or the expected one."""
    second: tuple[float, ...] = ()
    """Levels with b shown first, seen from a as well; none where the order is not swapped."""
    abstained: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached: bool = False
    """Remembered from before: it took no tokens."""

    @property
    def level(self) -> float:
        """The mean over votes and orders."""
        return mean([*self.first, *self.second])

    @property
    def decided(self) -> str:
        """`a` or `b`; `tie` where the judge abstained or its level is 0."""
        return decision(self.level, self.abstained)


@dataclass(frozen=True, kw_only=True)
class Ruling(Asked):
    """The same of a labelled pair."""

    id: str
    better: str
    """The label: `a`, `b` or `tie`."""
    criterion: str
    """What the better reply is better in."""
    words: tuple[int, int]
    """Of a and of b."""

    @classmethod
    def of(cls, pair: Labelled, asked: Asked) -> Self:
        """`asked`: about the pair's a against its b."""
        words = (len(pair.a.split()), len(pair.b.split()))
        return cls(id=pair.id, better=pair.better, criterion=pair.criterion, words=words, **vars(asked))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """From what `dataclasses.asdict` and JSON made of one. Raises `KeyError` or `TypeError` for anything else."""
        return cls(**{**values, **{name: tuple(values[name]) for name in ("words", "first", "second")}})

    @property
    def right(self) -> float:
        """1 where the judge decided as the label says, 0.5 where it did not decide. For labels that are no tie."""
        return right(self.decided, self.better)

    @property
    def right_kept(self) -> float:
        """The same with the mean level deciding where the judge abstained, as `abstain: keep` has it."""
        return right(decision(self.level), self.better)


@dataclass(frozen=True)
class Recording:
    """A judge asked about labelled pairs, once each."""

    rulings: tuple[Ruling, ...]
    failed: tuple[Failed, ...] = ()
    """Of the pairs without a verdict."""
    seconds: float = 0.0
    """That all of it took."""


def decision(level: float, abstained: bool = False) -> str:
    """`a`, `b` or `tie`, from a level seen from a."""
    if abstained or level == 0:
        return TIE
    return A if level > 0 else B


def right(decided: str, better: str) -> float:
    """How right a decision is where the label is `a` or `b`: 1, 0, or 0.5 for none."""
    return 0.5 if decided == TIE else float(decided == better)


def labelled(rulings: Sequence[Ruling]) -> list[Ruling]:
    """Those whose label is no tie: on a tie there is nothing to be right about."""
    return [ruling for ruling in rulings if ruling.better != TIE]
