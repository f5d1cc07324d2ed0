"""The critic's loss and what it explains, against plain Python floats and numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_platform.algorithms.value_loss import clipped_value_loss, explained_variance

NUMBERS = st.floats(-5, 5, width=32)
ROWS = st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("value", "loss", "gradient", "clipped"),
    [
        # The old value is 1, the return 2, values may move by .2.
        (1.1, 0.405, -0.9, False),
        (1.5, 0.32, 0.0, True),  # too fast towards the return: the loss of 1.2, no pull
        (0.5, 1.125, -1.5, False),  # away from it: the larger loss is the plain one
        (3.5, 1.125, 1.5, False),  # past it, further than 1.2 is short of it
        (2.5, 0.32, 0.0, True),  # past it, but 1.2 is further off
    ],
)
def test_each_side_of_the_clip_range_by_hand(value: float, loss: float, gradient: float, clipped: bool) -> None:
    values = torch.tensor([[value]], dtype=torch.float64, requires_grad=True)
    old, returns = torch.tensor([[1.0]], dtype=torch.float64), torch.tensor([[2.0]], dtype=torch.float64)
    found, acted = clipped_value_loss(values, old, returns, 0.2)
    found.sum().backward()
    assert found.item() == pytest.approx(loss)
    assert values.grad is not None
    assert values.grad.item() == pytest.approx(gradient)
    assert acted.item() is clipped


@given(ROWS, st.one_of(st.none(), st.floats(0.01, 3)))
def test_any_values_as_written(rows: list[tuple[float, float, float]], clip: float | None) -> None:
    values, old, returns = (torch.tensor([column], dtype=torch.float64) for column in zip(*rows, strict=True))
    values.requires_grad_()
    loss, clipped = clipped_value_loss(values, old, returns, clip)
    expected, gone = [], []
    for v, o, r in rows:
        bounded = v if clip is None else min(max(v, o - clip), o + clip)
        expected.append(max((v - r) ** 2, (bounded - r) ** 2) / 2)
        gone.append((bounded - r) ** 2 > (v - r) ** 2 + 1e-9)
    torch.testing.assert_close(loss, torch.tensor([expected], dtype=torch.float64))
    loss.sum().backward()
    assert values.grad is not None
    assert not values.grad[torch.tensor([gone])].any()
    assert (clipped | ~torch.tensor([gone])).all()


def sums(values: np.ndarray, returns: np.ndarray) -> np.ndarray:
    error = returns - values
    return np.array([len(values), returns.sum(), (returns**2).sum(), error.sum(), (error**2).sum()])


@given(ROWS, st.integers(0, 8))
def test_explained_variance_is_that_of_numpy_however_the_batch_is_split(
    rows: list[tuple[float, float, float]], cut: int
) -> None:
    values, returns = np.array([v for v, _, _ in rows]), np.array([r for _, _, r in rows])
    spread = returns.var()
    expected = 1 - (returns - values).var() / spread if spread > 1e-6 else None
    found = explained_variance(*(sums(values[:cut], returns[:cut]) + sums(values[cut:], returns[cut:])))
    if expected is not None:
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_explained_variance_by_hand() -> None:
    returns = np.array([0.0, 2.0, 4.0])
    assert explained_variance(*sums(returns, returns)) == 1
    assert explained_variance(*sums(returns + 7, returns)) == pytest.approx(1)  # a constant is no error of shape
    assert explained_variance(*sums(np.full(3, 9.0), returns)) == pytest.approx(0)
    assert explained_variance(*sums(-returns, returns)) == pytest.approx(-3)
    assert explained_variance(*sums(returns, np.full(3, 0.1))) == 0  # nothing to explain
    assert explained_variance(0, 0, 0, 0, 0) == 0
