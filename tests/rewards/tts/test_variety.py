"""Token monitors by hand, and what loops are by looking for them one by one."""

from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.tts import ended, loops, token_diversity
from rewards.types import RewardInput
from rlhf_platform.types import StopReason


def sample(*tokens: int, stop: StopReason = StopReason.EOS) -> RewardInput:
    return RewardInput("p", "", tokens=tokens, stop_reason=stop)


def test_it_ended_by_its_own_token() -> None:
    assert ended(sample(1)) == 1.0
    assert ended(sample(1, stop=StopReason.LENGTH)) == 0.0


def test_diversity_by_hand() -> None:
    assert token_diversity(sample(1, 2, 3, 4)) == pytest.approx({"distinct": 1.0, "entropy": 1.0})
    assert token_diversity(sample(7, 7, 7, 7)) == {"distinct": 0.25, "entropy": 0.0}
    assert token_diversity(sample(1, 1, 2, 2)) == pytest.approx({"distinct": 0.5, "entropy": log(2) / log(4)})
    assert token_diversity(sample(5)) == {"distinct": 1.0, "entropy": 0.0}
    assert token_diversity(sample()) == {"distinct": 0.0, "entropy": 0.0}


@pytest.mark.parametrize(
    ("tokens", "share"),
    [
        ([1, 2, 3, 4], 0.0),
        ([1, 1, 2, 3], 0.0),
        ([1, 1, 1, 2], 0.75),
        ([9, 1, 2, 1, 2, 1, 2, 8], 0.75),
        ([1, 2, 1, 2, 1, 2, 1], 1.0),
        ([], 0.0),
    ],
)
def test_loops_by_hand(tokens: list[int], share: float) -> None:
    assert loops(sample(*tokens)) == share


def test_a_loop_longer_than_the_period_is_none_and_impossible_bounds_are_refused() -> None:
    assert loops(sample(1, 2, 3, 1, 2, 3, 1, 2, 3), max_period=2) == 0.0
    assert loops(sample(1, 1, 2), min_repeats=2) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="max_period 0 and min_repeats 3"):
        loops(sample(1), max_period=0)
    with pytest.raises(ValueError, match="max_period 8 and min_repeats 1"):
        loops(sample(1), max_period=8, min_repeats=1)


@given(st.lists(st.integers(0, 2), max_size=16), st.integers(1, 4), st.integers(2, 3))
def test_loops_are_the_longest_stretch_that_repeats(tokens: list[int], most: int, repeats: int) -> None:
    stretches = [
        end - start
        for period in range(1, most + 1)
        for start in range(len(tokens))
        for end in range(start + period * repeats, len(tokens) + 1)
        if all(tokens[i] == tokens[i + period] for i in range(start, end - period))
    ]
    expected = max(stretches, default=0) / max(len(tokens), 1)
    assert loops(sample(*tokens), max_period=most, min_repeats=repeats) == expected
