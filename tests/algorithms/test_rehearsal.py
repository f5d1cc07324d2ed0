"""When rehearsal is on, by hand, and its loss against PyTorch's cross-entropy."""

from math import nan

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_platform.algorithms.rehearsal import RehearsalSwitch, rehearsal_loss

SWITCH = RehearsalSwitch(weight=0.5, tolerance=0.1)


@pytest.mark.parametrize(
    ("history", "weight"),
    [
        ([], 0.0),
        ([nan, nan], 0.0),
        ([0.8], 0.0),
        ([0.8, 0.71], 0.0),  # within the tolerance
        ([0.8, 0.69], 0.5),
        ([0.8, nan, 0.69, nan], 0.5),
        ([0.8, 0.69, 0.74], 0.5),  # better, but not by half
        ([0.8, 0.69, 0.76], 0.0),
        ([0.8, 0.69, 0.76, 0.72], 0.0),  # off, and within the tolerance again
        ([0.8, 0.69, 0.9], 0.0),
        ([0.7, 0.9, 0.79], 0.5),  # of the best, not of the first
    ],
)
def test_it_is_on_from_the_fall_until_half_of_it_is_made_good(history: list[float], weight: float) -> None:
    assert SWITCH.next_weight(history) == weight
    turned = RehearsalSwitch(0.5, 0.1, higher_is_better=False)
    assert turned.next_weight([-value for value in history]) == weight


@given(st.lists(st.sampled_from([0.0, 0.04, 0.06, 0.12, nan]), max_size=12))
def test_it_is_off_at_the_best_and_on_far_below_it(history: list[float]) -> None:
    assert SWITCH.next_weight([*history, 0.2]) == 0.0
    assert SWITCH.next_weight([*history, 0.2, 0.0]) == 0.5


def test_the_loss_is_the_cross_entropy_of_the_tokens_that_count() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(3, 5, 7, dtype=torch.float64, requires_grad=True), torch.randint(7, (3, 5))
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]], dtype=torch.float64)
    labels = targets.masked_fill(mask == 0, -100)
    expected = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels)
    found = rehearsal_loss(logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0], mask)
    torch.testing.assert_close(found, expected)
    ours, theirs = (torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (found, expected))
    torch.testing.assert_close(ours, theirs)


def test_parts_of_a_batch_add_up() -> None:
    logprobs, mask = -torch.rand(4, 6, dtype=torch.float64), (torch.rand(4, 6) < 0.7).double()
    parts = [rehearsal_loss(logprobs[rows], mask[rows], mask.sum()) for rows in (slice(1), slice(1, 4))]
    torch.testing.assert_close(sum(parts), rehearsal_loss(logprobs, mask))
