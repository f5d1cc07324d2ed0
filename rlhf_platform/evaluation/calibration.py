"""Whether a judge is to be trusted: its verdicts on labelled pairs of replies, in figures.

A judge of two replies leans towards a place ("position bias") and towards length ("verbosity bias"), whatever it is
asked (2306.05685); accuracy alone does not show that. Intervals are bootstrap intervals over pairs.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlhf_platform.evaluation.bootstrap import Interval, wer_difference, wer_interval
from rlhf_platform.evaluation.rulings import TIE, A, B, Recording, Ruling, decision, labelled

LEVELS = (-2, -1, 0, 1, 2)
_CONFIDENCE = 0.95
_RESAMPLES = 10_000


@dataclass(frozen=True)
class Calibration:
    """The figures of a judge. What the pairs cannot tell is None."""

    pairs: int
    """With a verdict."""
    ties: int
    """Of these, with the label `tie`; they count in `confusion` and the shares, not in accuracies."""
    failures: Mapping[str, int]
    """Pairs without a verdict, by the kind of failure."""
    accuracy: Interval | None
    """Share of labelled pairs on which judge and label agree; abstaining, or level 0, is half an agreement."""
    accuracy_kept: Interval | None
    """The same where the mean level decides although the judge abstained, as for a reward with `abstain: keep`: a lean
    towards the first reply cancels out, and what is left may still tell."""
    criteria: Mapping[str, tuple[int, Interval]]
    """Pairs and accuracy of mean levels, by what the better reply is better in."""
    order_bias: Interval | None
    """Share of single votes for the reply that is shown first, minus a half; a vote for neither is half a vote. Where
    the order is not swapped it takes pairs whose labels are a as often as b."""
    length_bias: Interval | None
    """Accuracy of mean levels where the better reply has more words, minus that where it has fewer."""
    length_correlation: float | None
    """Spearman's, of the level with how many more words a has than b."""
    order_agreement: float | None
    """Share of pairs on which both orders decide alike."""
    vote_agreement: float | None
    """Share of votes with the majority of their pair's, over pairs with more than one."""
    abstained: float
    """Share of pairs."""
    confusion: Mapping[str, Mapping[int, int]]
    """Pairs by label and rounded level, seen from a."""
    verdicts_per_s: float
    """Remembered ones as well."""
    tokens_per_s: float
    """Prompts and completions; none of remembered verdicts."""
    cached: float
    """Share of verdicts that were remembered."""


def calibration(recording: Recording) -> Calibration:
    """The figures of one pass over labelled pairs."""
    rulings = recording.rulings
    told = labelled(rulings)
    asked = [ruling for ruling in rulings if not ruling.cached]
    tokens = sum(ruling.prompt_tokens + ruling.completion_tokens for ruling in asked)
    return Calibration(
        pairs=len(rulings),
        ties=len(rulings) - len(told),
        failures=dict(sorted(Counter(failed.kind for failed in recording.failed).items())),
        accuracy=accuracy(told),
        accuracy_kept=share([ruling.right_kept for ruling in told]),
        criteria=_by_criterion(told),
        order_bias=order_bias(rulings),
        length_bias=_length_bias(told),
        length_correlation=_length_correlation(rulings),
        order_agreement=_order_agreement(rulings),
        vote_agreement=_vote_agreement(rulings),
        abstained=_mean([ruling.abstained for ruling in rulings]),
        confusion={
            label: dict.fromkeys(LEVELS, 0)
            | Counter(round(ruling.level) for ruling in rulings if ruling.better == label)
            for label in (A, TIE, B)
        },
        verdicts_per_s=len(rulings) / recording.seconds if recording.seconds else 0.0,
        tokens_per_s=tokens / recording.seconds if recording.seconds else 0.0,
        cached=_mean([ruling.cached for ruling in rulings]),
    )


def accuracy(rulings: Sequence[Ruling]) -> Interval | None:
    """Share of labelled pairs that were judged as labelled; None where all labels are ties."""
    return share([ruling.right for ruling in labelled(rulings)])


def order_bias(rulings: Sequence[Ruling]) -> Interval | None:
    """As `Calibration.order_bias`; a pair is drawn with all of its votes."""
    counted = [ruling for ruling in rulings if ruling.first or ruling.second]
    if not counted:
        return None
    votes = np.array([len(ruling.first) + len(ruling.second) for ruling in counted], dtype=np.float64)
    won = np.array([sum(map(_for_first, [*r.first, *(-vote for vote in r.second)])) for r in counted])
    return wer_interval(won - votes / 2, votes, confidence=_CONFIDENCE, resamples=_RESAMPLES)


def share(values: Sequence[float]) -> Interval | None:
    """The mean of one value per pair with its interval; None where there is no pair."""
    # A mean is an error rate with one word to a pair.
    counts = np.ones(len(values))
    return wer_interval(np.array(values), counts, confidence=_CONFIDENCE, resamples=_RESAMPLES) if values else None


def _for_first(vote: float) -> float:
    return 0.5 if vote == 0 else float(vote > 0)


def _by_criterion(told: Sequence[Ruling]) -> dict[str, tuple[int, Interval]]:
    found = {}
    for criterion in sorted({ruling.criterion for ruling in told}):
        rights = [ruling.right_kept for ruling in told if ruling.criterion == criterion]
        interval = share(rights)
        assert interval is not None
        found[criterion] = (len(rights), interval)
    return found


def _more_words(ruling: Ruling) -> int:
    return ruling.words[0] - ruling.words[1]


def _length_bias(told: Sequence[Ruling]) -> Interval | None:
    from scipy import stats

    ahead = [_more_words(ruling) if ruling.better == A else -_more_words(ruling) for ruling in told]
    longer = [ruling.right_kept for ruling, more in zip(told, ahead, strict=True) if more > 0]
    shorter = [ruling.right_kept for ruling, more in zip(told, ahead, strict=True) if more < 0]
    if min(len(longer), len(shorter)) < 2:
        return None

    def gap(x: "np.typing.NDArray[np.float64]", y: "np.typing.NDArray[np.float64]", axis: int) -> object:
        return x.mean(axis=axis) - y.mean(axis=axis)

    found = stats.bootstrap(
        (longer, shorter), gap, n_resamples=_RESAMPLES, confidence_level=_CONFIDENCE, method="percentile", rng=0
    ).confidence_interval
    return Interval(_mean(longer) - _mean(shorter), float(found.low), float(found.high), _CONFIDENCE)


def _length_correlation(rulings: Sequence[Ruling]) -> float | None:
    from scipy import stats

    levels, more = [ruling.level for ruling in rulings], [_more_words(ruling) for ruling in rulings]
    if len(set(levels)) < 2 or len(set(more)) < 2:
        return None
    return float(stats.spearmanr(levels, more).statistic)


def _order_agreement(rulings: Sequence[Ruling]) -> float | None:
    both = [(decision(sum(r.first)), decision(sum(r.second))) for r in rulings if r.first and r.second]
    return _mean([first == second for first, second in both]) if both else None


def _vote_agreement(rulings: Sequence[Ruling]) -> float | None:
    votes = [[decision(vote) for vote in (*r.first, *r.second)] for r in rulings]
    most = [(max(Counter(each).values()), len(each)) for each in votes if len(each) > 1]
    return sum(count for count, _ in most) / sum(length for _, length in most) if most else None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


@dataclass(frozen=True)
class Drift:
    """The same judge, or two, on the same pairs at two times."""

    pairs: int
    """That both gave a verdict on."""
    changed: float
    """Share of them on which the decision (a, b or neither) is another."""
    accuracy: Interval | None
    """Now minus earlier, paired over pairs; below 0 it got worse. None where all labels are ties."""


def drift(earlier: Sequence[Ruling], now: Sequence[Ruling]) -> Drift:
    """How far verdicts moved. Raises `ValueError` when the two have no pair in common."""
    before = {ruling.id: ruling for ruling in earlier}
    both = [(before[ruling.id], ruling) for ruling in now if ruling.id in before]
    if not both:
        raise ValueError("no pair was judged both times: ask about the same pairs")
    told = [(first.right, second.right) for first, second in both if second.better != TIE]
    gap = None
    if told:
        first, second = (np.array(side) for side in zip(*told, strict=True))
        gap = wer_difference(first, second, np.ones(len(told)), confidence=_CONFIDENCE, resamples=_RESAMPLES)
    return Drift(len(both), _mean([first.decided != second.decided for first, second in both]), gap)
