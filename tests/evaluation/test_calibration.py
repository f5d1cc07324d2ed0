"""A judge's figures, by hand and against scipy and scikit-learn."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import confusion_matrix

from rlhf_platform.data.labelled import Labelled
from rlhf_platform.evaluation.calibration import LEVELS, calibration, drift
from rlhf_platform.evaluation.rulings import Asked, Recording, Ruling
from rlhf_platform.types import Failed


def ruling(
    number: int,
    better: str,
    first: tuple[float, ...],
    second: tuple[float, ...] = (),
    criterion: str = "memory",
    words: tuple[int, int] = (3, 3),
    abstained: bool = False,
) -> Ruling:
    return Ruling(
        id=f"p{number}",
        better=better,
        criterion=criterion,
        words=words,
        first=first,
        second=second,
        abstained=abstained,
    )


def random_rulings(seed: int, pairs: int = 40) -> list[Ruling]:
    rng = np.random.default_rng(seed)
    found = []
    for number in range(pairs):
        votes = [tuple(int(v) for v in rng.integers(-2, 3, 3)) for _ in range(2)]
        words = (int(rng.integers(1, 12)), int(rng.integers(1, 12)))
        found.append(ruling(number, str(rng.choice(["a", "b", "tie"])), *votes, words=words))
    return found


def test_a_ruling_is_what_was_said_of_a_pair_and_survives_json() -> None:
    pair = Labelled("p1", "", (), "open the box", "aye i open it", "no", "a", "persona", "calibration")
    found = Ruling.of(pair, Asked(first=(1, 2), second=(0, -1), prompt_tokens=90, completion_tokens=4, cached=True))
    assert (found.level, found.decided, found.right, found.words) == (0.5, "a", 1.0, (4, 1))
    assert (found.first, found.second, found.prompt_tokens, found.cached) == ((1, 2), (0, -1), 90, True)
    assert Ruling.from_json(json.loads(json.dumps(asdict(found)))) == found


def test_agreement_counts_abstaining_and_a_level_of_nothing_as_a_half_and_leaves_ties_out() -> None:
    rulings = [
        ruling(1, "a", (2,), (1,)),  # right
        ruling(2, "b", (2,), (1,)),  # wrong
        ruling(3, "b", (-1,), (-1,), criterion="safety"),  # right
        ruling(4, "a", (1,), (-1,), criterion="safety"),  # level 0
        ruling(5, "b", (1,), (1,), abstained=True),
        ruling(6, "tie", (1,), (1,)),
    ]
    failed = (Failed("timeout", "late"), Failed("timeout", "late"), Failed("budget", "spent"))
    found = calibration(Recording(tuple(rulings), failed, seconds=2.0))
    assert found.accuracy is not None
    assert found.accuracy.point == pytest.approx(3 / 5)
    assert found.accuracy_kept is not None
    assert found.accuracy_kept.point == pytest.approx(2.5 / 5)  # the level of the fifth is wrong
    assert {name: (pairs, interval.point) for name, (pairs, interval) in found.criteria.items()} == {
        "memory": (3, pytest.approx(1 / 3)),
        "safety": (2, pytest.approx(0.75)),
    }
    assert (found.pairs, found.ties, found.failures) == (6, 1, {"budget": 1, "timeout": 2})
    assert found.abstained == pytest.approx(1 / 6)
    assert found.order_agreement == pytest.approx(5 / 6)
    assert found.verdicts_per_s == pytest.approx(3.0)


def test_the_interval_of_the_accuracy_is_that_of_a_proportion() -> None:
    rights = np.random.default_rng(0).random(400) < 0.7
    rulings = tuple(ruling(i, "a", (1,) if right else (-1,)) for i, right in enumerate(rights))
    found = calibration(Recording(rulings)).accuracy
    assert found is not None
    exact = stats.binomtest(int(rights.sum()), 400).proportion_ci(0.95, method="wilson")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=0.01)


def test_a_judge_that_always_takes_the_first_has_all_the_order_bias_and_half_the_accuracy() -> None:
    # Seen from a: shown first it wins, shown second it loses.
    found = calibration(Recording(tuple(ruling(i, "ab"[i % 2], (1,), (-1,)) for i in range(20))))
    assert found.order_bias is not None
    assert (found.order_bias.point, found.order_bias.low, found.order_bias.high) == (0.5, 0.5, 0.5)
    assert found.order_agreement == 0.0
    assert found.accuracy is not None
    assert found.accuracy.point == 0.5


def test_order_bias_weighs_every_vote_alike_and_a_vote_for_neither_as_half_a_vote() -> None:
    # First-shown wins: 1, 1, 0 of p1; 0.5, 1 (b is first and wins) of p2: 3.5 of 5 votes.
    found = calibration(Recording((ruling(1, "a", (1, 2), (1,)), ruling(2, "b", (0,), (-1,)))))
    assert found.order_bias is not None
    assert found.order_bias.point == pytest.approx(3.5 / 5 - 0.5)


def test_votes_agree_as_far_as_they_are_with_the_majority_of_their_pair() -> None:
    # 3 of 4 for a, 2 of 3 for b whatever the strength; a single vote says nothing.
    rulings = (ruling(1, "a", (1, 2), (1, -1)), ruling(2, "a", (-1, -2), (0,)), ruling(3, "a", (1,)))
    assert calibration(Recording(rulings)).vote_agreement == pytest.approx(5 / 7)
    assert calibration(Recording(rulings[2:])).vote_agreement is None


def test_length_bias_is_the_gap_between_longer_and_shorter_better_replies() -> None:
    rng = np.random.default_rng(3)
    rulings, longer, shorter = [], [], []
    for number in range(60):
        better, wins = "ab"[number % 2], rng.random() < 0.6
        words = (int(rng.integers(1, 9)), int(rng.integers(1, 9)))
        level = (1 if wins else -1) * (1 if better == "a" else -1)
        rulings.append(ruling(number, better, (level,), words=words))
        ahead = words[0] - words[1] if better == "a" else words[1] - words[0]
        (longer if ahead > 0 else shorter if ahead < 0 else []).append(float(wins))
    found = calibration(Recording(tuple(rulings)))
    assert found.length_bias is not None
    gap = np.mean(longer) - np.mean(shorter)
    deviation = np.sqrt(np.var(longer) / len(longer) + np.var(shorter) / len(shorter))
    assert found.length_bias.point == pytest.approx(gap)
    assert found.length_bias.low == pytest.approx(gap - 1.96 * deviation, abs=0.04)
    assert found.length_bias.high == pytest.approx(gap + 1.96 * deviation, abs=0.04)


def test_a_judge_of_length_alone_has_a_correlation_of_one() -> None:
    levels = [(-2,), (-1,), (0,), (1,), (2,)]
    rulings = tuple(ruling(i, "a", votes, words=(5 + 3 * i, 9)) for i, votes in enumerate(levels))
    assert calibration(Recording(rulings)).length_correlation == pytest.approx(1.0)
    assert calibration(Recording(rulings[:1])).length_correlation is None


def test_confusion_is_that_of_scikit_learn() -> None:
    rulings = random_rulings(7)
    found = calibration(Recording(tuple(rulings))).confusion
    assert {label: sum(counts.values()) for label, counts in found.items()} == {
        label: sum(r.better == label for r in rulings) for label in ("a", "tie", "b")
    }
    for label, counts in found.items():
        theirs = confusion_matrix(
            [0] * sum(r.better == label for r in rulings),
            [int(np.rint(r.level)) for r in rulings if r.better == label],
            labels=LEVELS,
        )[LEVELS.index(0)]
        assert [counts[level] for level in LEVELS] == theirs.tolist()


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_the_names_of_the_two_replies_do_not_matter(seed: int) -> None:
    rulings = random_rulings(seed, 12)
    other = {"a": "b", "b": "a", "tie": "tie"}
    # b is called a: the votes with a first were those with the new b first, and all are seen from the other side.
    renamed = [
        replace(
            r,
            better=other[r.better],
            words=r.words[::-1],
            first=tuple(-vote for vote in r.second),
            second=tuple(-vote for vote in r.first),
        )
        for r in rulings
    ]
    one, two = (calibration(Recording(tuple(each))) for each in (rulings, renamed))
    assert one.accuracy == two.accuracy
    assert one.order_bias == two.order_bias
    assert one.length_bias == two.length_bias
    assert one.length_correlation == pytest.approx(two.length_correlation)
    assert (one.order_agreement, one.vote_agreement) == (two.order_agreement, two.vote_agreement)


def test_remembered_verdicts_took_no_tokens() -> None:
    asked = replace(ruling(1, "a", (1,)), prompt_tokens=90, completion_tokens=10)
    remembered = replace(asked, id="p2", cached=True)
    found = calibration(Recording((asked, remembered), seconds=4.0))
    assert (found.verdicts_per_s, found.tokens_per_s, found.cached) == (0.5, 25.0, 0.5)


def test_ties_alone_and_no_verdict_at_all_have_no_accuracy() -> None:
    assert calibration(Recording((ruling(1, "tie", (1,)),))).accuracy is None
    none = calibration(Recording((), (Failed("unavailable", "nobody there"),)))
    assert (none.accuracy, none.order_bias, none.length_bias, none.vote_agreement) == (None,) * 4
    assert (none.pairs, none.abstained) == (0, 0.0)


def test_drift_is_of_the_pairs_that_both_times_have() -> None:
    before = [ruling(i, "a", (1,)) for i in range(8)]
    now = [ruling(i, "a", (-1,) if i in (2, 3) else (2,)) for i in range(2, 10)]
    found = drift(before, now)
    # Of 2 to 7, two are lost; from 1 to 2 is no other decision.
    assert (found.pairs, found.changed) == (6, pytest.approx(2 / 6))
    assert found.accuracy is not None
    assert found.accuracy.point == pytest.approx(-2 / 6)
    assert found.accuracy.low < -2 / 6 < found.accuracy.high <= 0
    still = drift(before, before)
    assert still.accuracy is not None
    assert (still.changed, still.accuracy.low, still.accuracy.high) == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="no pair was judged both times"):
        drift(before[:2], now)


def test_drift_on_ties_is_seen_in_the_decisions() -> None:
    found = drift([ruling(1, "tie", (0,))], [ruling(1, "tie", (1,))])
    assert (found.changed, found.accuracy) == (1.0, None)
