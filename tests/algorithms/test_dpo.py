"""The loss of pairs and the choice of pairs, against plain Python floats."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_platform.algorithms.dpo import best_and_worst, pair_loss

TYPES = ("sigmoid", "hinge", "ipo")
PAIRS = st.lists(st.tuples(st.floats(-30, 30), st.floats(-30, 30)), min_size=1, max_size=8)
Groups = list[list[tuple[float, bool]]]
GROUPS = st.integers(1, 6).flatmap(
    lambda size: st.lists(
        st.lists(st.tuples(st.integers(-3, 3).map(float), st.booleans()), min_size=size, max_size=size),
        min_size=1,
        max_size=5,
    )
)


def by_hand(margin: float, beta: float, kind: str) -> float:
    if kind == "sigmoid":
        return math.log(1 + math.exp(-beta * margin))
    return max(0.0, 1 - beta * margin) if kind == "hinge" else (margin - 1 / (2 * beta)) ** 2


@pytest.mark.parametrize("kind", TYPES)
@given(pairs=PAIRS, beta=st.floats(0.01, 2))
def test_each_loss_as_written_in_its_paper(kind: str, pairs: list[tuple[float, float]], beta: float) -> None:
    chosen, rejected = (torch.tensor(column, dtype=torch.float64) for column in zip(*pairs, strict=True))
    expected = torch.tensor([by_hand(w - r, beta, kind) for w, r in pairs], dtype=torch.float64)
    torch.testing.assert_close(pair_loss(chosen, rejected, beta, kind), expected)


@pytest.mark.parametrize("kind", TYPES)
def test_a_pair_of_equals_is_pulled_apart_and_far_ones_are_finite(kind: str) -> None:
    chosen, rejected = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    pair_loss(chosen, rejected, 0.1, kind).sum().backward()
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert chosen.grad.item() < 0 < rejected.grad.item()
    far = torch.tensor([-1e4, 1e4])
    assert torch.isfinite(pair_loss(far, -far, 1.0, kind)).all()


def test_an_unknown_loss_is_named() -> None:
    with pytest.raises(ValueError, match=r"algorithm.loss_type is 'dpo': sigmoid, hinge or ipo"):
        pair_loss(torch.zeros(1), torch.zeros(1), 0.1, "dpo")


@given(GROUPS)
def test_a_pair_is_the_first_best_and_the_first_worst_that_were_scored(groups: Groups) -> None:
    rewards = torch.tensor([[reward if counts else math.nan for reward, counts in group] for group in groups])
    scored = torch.tensor([[counts for _, counts in group] for group in groups])
    best, worst, has_pair = best_and_worst(rewards, scored)
    for row, group in enumerate(groups):
        kept = [(reward, i) for i, (reward, counts) in enumerate(group) if counts]
        assert has_pair[row].item() is (len({reward for reward, _ in kept}) > 1)
        if has_pair[row]:
            assert best[row].item() == max(kept, key=lambda each: (each[0], -each[1]))[1]
            assert worst[row].item() == min(kept)[1]


def test_groups_by_hand() -> None:
    rewards = torch.tensor([[1.0, 3.0, 2.0], [9.0, 1.0, 5.0], [2.0, 2.0, 2.0], [4.0, 1.0, 7.0]])
    scored = torch.tensor([[True] * 3, [False, True, True], [True] * 3, [False, False, True]])
    best, worst, has_pair = best_and_worst(rewards, scored)
    assert (best[:2].tolist(), worst[:2].tolist()) == ([1, 2], [0, 1])
    assert has_pair.tolist() == [True, True, False, False]
