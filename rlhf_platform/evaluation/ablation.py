"""What swapping the order and asking for several votes are worth, from one recording with both orders and all votes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from rewards.judge.verdict import abstains, mean
from rlhf_platform.errors import DataError
from rlhf_platform.evaluation.bootstrap import Interval, wer_interval
from rlhf_platform.evaluation.rulings import Ruling, decision, labelled, right

VOTES = (1, 3, 5)


@dataclass(frozen=True)
class Setting:
    """One way to ask."""

    name: str
    """`1`, `3` or `5` votes in each order, or `expected`: one token's probabilities."""
    swap: bool
    pairs: int
    """With a label and a verdict."""
    accuracy: Interval
    """With abstaining as half an agreement."""
    accuracy_kept: Interval
    """With the mean level deciding where the judge abstained."""
    tokens: float
    """Prompts and completions of a pair, on average, with nothing remembered."""


def ablate_votes(rulings: Sequence[Ruling], least: float, votes: Sequence[int] = VOTES) -> list[Setting]:
    """Fewer votes, in one order and in both. `least`: share of votes that must agree, or the judge abstains.

    The accuracy of k votes is the mean over all choices of k of those recorded; that of one order the mean over both.
    Raises `DataError` when no ruling has a label and votes in both orders.
    """
    told = _of_both_orders(rulings)
    most = min(min(len(r.first), len(r.second)) for r in told)
    return [_setting(str(k), told, swap, k, least) for k in votes if k <= most for swap in (False, True)]


def ablate_order(name: str, rulings: Sequence[Ruling], least: float) -> list[Setting]:
    """All that was recorded in an order, in one order and in both. Raises as `ablate_votes`."""
    told = _of_both_orders(rulings)
    most = min(min(len(r.first), len(r.second)) for r in told)
    return [_setting(name, told, swap, most, least) for swap in (False, True)]


def _of_both_orders(rulings: Sequence[Ruling]) -> list[Ruling]:
    told = [ruling for ruling in labelled(rulings) if ruling.first and ruling.second]
    if not told:
        raise DataError("no labelled pair has verdicts in both orders; ask about pairs that are no ties, with swap")
    return told


def _setting(name: str, rulings: Sequence[Ruling], swap: bool, votes: int, least: float) -> Setting:
    # Choices of one pair are drawn together, as decodings of one clip are.
    rights = np.array([np.mean(list(_rights(ruling, swap, votes, least)), axis=0) for ruling in rulings])
    accuracy, kept = (wer_interval(each, np.ones(len(rulings))) for each in rights.T)
    tokens = [
        (r.prompt_tokens + r.completion_tokens * 2 * votes / (len(r.first) + len(r.second))) / (1 if swap else 2)
        for r in rulings
        if not r.cached
    ]
    return Setting(name, swap, len(rulings), accuracy, kept, mean(tokens) if tokens else 0.0)


def _rights(ruling: Ruling, swap: bool, votes: int, least: float) -> Iterator[tuple[float, float]]:
    """How right each choice of `votes` levels of an order is, with and without abstaining."""
    first, second = (list(combinations(levels, votes)) for levels in (ruling.first, ruling.second))
    chosen = [(a, b) for a in first for b in second] if swap else [(one, ()) for one in first + second]
    for a, b in chosen:
        said = [*a, *b]
        level, abstained = mean(said), abstains(a, b, said, least)
        yield right(decision(level, abstained), ruling.better), right(decision(level), ruling.better)
