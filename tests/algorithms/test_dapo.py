"""DAPO's overlong penalty against equation 13 in fractions, and which groups dynamic sampling keeps."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_platform.algorithms.dapo import has_spread, overlong_penalty
from rlhf_platform.algorithms.grpo import group_advantages


def equation_13(length: int, longest: int, cache: Fraction) -> Fraction:
    if length <= longest - cache:
        return Fraction(0)
    if length <= longest:
        return ((longest - cache) - length) / cache
    return Fraction(-1)


def test_the_published_lengths() -> None:
    # 20,480 tokens in all, the last 4,096 of them penalised.
    lengths = torch.tensor([1, 16_384, 17_408, 18_432, 20_480, 20_481])
    penalty = overlong_penalty(lengths, torch.zeros(6, dtype=torch.bool), 20_480, 0.2)
    torch.testing.assert_close(penalty, torch.tensor([0.0, 0.0, -0.25, -0.5, -1.0, -1.0]))


@given(st.integers(1, 400), st.integers(1, 300), st.integers(1, 100))
def test_any_length_and_share(length: int, longest: int, percent: int) -> None:
    expected = equation_13(length, longest, Fraction(percent, 100) * longest)
    penalty = overlong_penalty(torch.tensor([length]), torch.tensor([False]), longest, percent / 100)
    assert penalty.item() == pytest.approx(float(expected), abs=1e-5)


def test_what_was_cut_pays_in_full_however_short_it_is() -> None:
    # A model's window may end before `max_new_tokens` does.
    cut = torch.tensor([True, True, False, False])
    penalty = overlong_penalty(torch.tensor([3, 100, 3, 100]), cut, 100, 0.2)
    torch.testing.assert_close(penalty, torch.tensor([-1.0, -1.0, 0.0, -1.0]))


def test_without_a_share_only_what_was_cut_pays() -> None:
    penalty = overlong_penalty(torch.tensor([100, 100]), torch.tensor([False, True]), 100, 0.0)
    assert penalty.tolist() == [0, -1]


def test_groups_that_all_answered_alike_have_no_spread() -> None:
    rewards = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 0.0], [0.3, 0.3, 0.3], [5.0, 7.0, 9.0]])
    rewards[3, 0] = torch.nextafter(rewards[3, 0], torch.tensor(torch.inf))
    scored = torch.ones(5, 3, dtype=torch.bool)
    scored[2, 2] = False  # the only answer that differs has no reward
    scored[4, :2] = False  # alone in its group
    assert has_spread(rewards, scored).tolist() == [True, False, False, False, False]


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6))
def test_a_group_has_spread_where_it_has_advantages(row: list[tuple[int, bool]]) -> None:
    rewards = torch.tensor([[float(r) for r, _ in row]])
    scored = torch.tensor([[kept for _, kept in row]])
    kept = {r for r, s in row if s}
    assert has_spread(rewards, scored).item() == (len(kept) > 1)
    assert has_spread(rewards, scored).item() == bool((group_advantages(rewards, scored) != 0).any())
