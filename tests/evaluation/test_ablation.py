"""Fewer votes and one order, by hand and by drawing."""

from dataclasses import replace

import numpy as np
import pytest

from rlhf_platform.errors import DataError
from rlhf_platform.evaluation.ablation import ablate_order, ablate_votes
from rlhf_platform.evaluation.rulings import Ruling
from tests.evaluation.test_calibration import ruling


def recorded(votes: int) -> list[Ruling]:
    """Both orders, more often right than wrong, with 100 tokens of prompts and 2 a vote."""
    rng = np.random.default_rng(2)
    drawn = rng.choice([1, 1, 0, -1], size=(30, 2, votes)).tolist()
    return [
        replace(ruling(i, "a", tuple(one), tuple(two)), prompt_tokens=100, completion_tokens=4 * votes)
        for i, (one, two) in enumerate(drawn)
    ]


def test_fewer_votes_are_the_mean_over_all_choices_of_them() -> None:
    rulings = recorded(5)
    found = {(each.name, each.swap): each for each in ablate_votes(rulings, least=0.0)}
    assert list(found) == [(name, swap) for name in ("1", "3", "5") for swap in (False, True)]
    # One vote in one order: every vote by itself.
    single = np.mean([0.5 + vote / 2 for r in rulings for vote in (*r.first, *r.second)])
    assert found["1", False].accuracy.point == pytest.approx(single)
    # All of them are the recording itself, but for orders that contradict each other.
    whole = [
        0.5 if sum(r.first) * sum(r.second) < 0 else 0.5 + np.sign(sum(r.first) + sum(r.second)) / 2 for r in rulings
    ]
    assert found["5", True].accuracy.point == pytest.approx(np.mean(whole))
    # Three of five by drawing: 20,000 draws come within 0.004.
    rng = np.random.default_rng(0)
    drawn = [
        0.5 + np.sign(sum(rng.choice(r.first if rng.random() < 0.5 else r.second, 3, replace=False))) / 2
        for r in rulings
        for _ in range(4000)
    ]
    assert found["3", False].accuracy.point == pytest.approx(np.mean(drawn), abs=0.006)


def test_an_order_and_a_vote_less_cost_less() -> None:
    tokens = {(each.name, each.swap): each.tokens for each in ablate_votes(recorded(5), least=0.0)}
    # 100 tokens of two prompts and 2 a vote.
    assert tokens == {
        ("1", False): 52.0,
        ("1", True): 104.0,
        ("3", False): 56.0,
        ("3", True): 112.0,
        ("5", False): 60.0,
        ("5", True): 120.0,
    }


def test_one_expected_level_is_ablated_by_order_alone() -> None:
    # Each order is right on one of the two pairs; together they contradict each other on both.
    rulings = [ruling(1, "a", (0.6,), (-0.2,)), ruling(2, "b", (0.2,), (-0.4,)), ruling(3, "tie", (1.0,), (1.0,))]
    one, both = ablate_order("expected", rulings, least=0.0)
    assert (one.name, one.swap, both.swap) == ("expected", False, True)
    assert (one.accuracy.point, both.accuracy.point) == (0.5, 0.5)
    assert (one.accuracy_kept.point, both.accuracy_kept.point) == (0.5, 1.0)  # the surer order is right
    (_, agreeing) = ablate_order("expected", [ruling(1, "a", (0.6,), (0.2,))], least=0.0)
    assert agreeing.accuracy.point == 1.0
    assert [each.name for each in ablate_votes(rulings, least=0.0)] == ["1", "1"]


def test_votes_that_agree_too_little_count_as_half_right() -> None:
    rulings = [ruling(1, "a", (1, 1, -1), (1, 1, 1))]
    accuracies = {each.swap: each.accuracy.point for each in ablate_order("3", rulings, least=0.9)}
    # 5 of 6 votes are less than 0.9. Alone, one order abstains and the other is right.
    assert accuracies == {False: 0.75, True: 0.5}
    assert [each.accuracy_kept.point for each in ablate_order("3", rulings, least=0.9)] == [1.0, 1.0]


def test_one_order_cannot_be_ablated() -> None:
    with pytest.raises(DataError, match="no labelled pair has verdicts in both orders"):
        ablate_votes([ruling(1, "a", (1,))], least=0.0)
