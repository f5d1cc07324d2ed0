"""Whitening of a batch, against numpy in float64 on what counts."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from rlhf_platform.algorithms.whitening import whitened

ROWS = st.integers(1, 6).flatmap(
    lambda size: st.lists(
        st.lists(st.tuples(st.integers(-400, 400).map(lambda n: n / 8), st.booleans()), min_size=size, max_size=size),
        min_size=1,
        max_size=5,
    )
)
Rows = list[list[tuple[float, bool]]]


def tensors(rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
    values = torch.tensor([[value if counts else math.nan for value, counts in row] for row in rows])
    return values, torch.tensor([[counts for _, counts in row] for row in rows])


@given(ROWS)
def test_values_are_those_of_numpy(rows: Rows) -> None:
    values, mask = tensors(rows)
    kept = values[mask].double().numpy()
    expected = np.zeros(values.shape)
    if len(set(kept.tolist())) > 1:
        expected[mask.numpy()] = (kept - kept.mean()) / kept.std(ddof=1)
    np.testing.assert_allclose(whitened(values, mask).numpy(), expected, rtol=1e-5, atol=1e-6)


@given(ROWS)
def test_the_mean_is_0_and_the_standard_deviation_1(rows: Rows) -> None:
    values, mask = tensors(rows)
    kept = whitened(values.double(), mask)[mask]
    assume(len(set(values[mask].tolist())) > 1)
    assert kept.mean().item() == pytest.approx(0, abs=1e-9)
    assert kept.std().item() == pytest.approx(1)


@given(ROWS, st.integers(1, 3))
def test_padding_and_failed_samples_leave_no_trace(rows: Rows, extra: int) -> None:
    values, mask = tensors(rows)
    padded = whitened(
        torch.nn.functional.pad(values, (0, extra, 0, 1), value=1e9), torch.nn.functional.pad(mask, (0, extra, 0, 1))
    )
    assert torch.equal(padded[:-1, :-extra], whitened(values, mask))
    assert not padded[-1].any()
    assert not padded[:, -extra:].any()


@pytest.mark.parametrize("value", [0.1, -7.0, 0.0])
def test_equal_values_teach_nothing(value: float) -> None:
    rounded = torch.full((3, 7), value)
    rounded[0, 0] = torch.nextafter(rounded[0, 0], torch.tensor(9.0))
    assert not whitened(rounded, torch.ones(3, 7)).any()


def test_fewer_than_two_values_teach_nothing() -> None:
    values = torch.tensor([[3.0, 5.0]])
    assert not whitened(values, torch.tensor([[1.0, 0.0]])).any()
    assert not whitened(values, torch.zeros(1, 2)).any()


def test_a_batch_by_hand() -> None:
    # Mean 2, squared deviations 4 + 0 + 4 over n - 1 = 2: standard deviation 2.
    assert whitened(torch.tensor([[0.0, 2.0], [4.0, 9.0]]), torch.tensor([[1, 1], [1, 0]])).tolist() == [
        [-1.0, 0.0],
        [1.0, 0.0],
    ]
