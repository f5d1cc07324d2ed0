"""The k3 estimator against the exact KL, by enumeration of a vocabulary."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_platform.algorithms.kl import kl_to_reference

DISTRIBUTIONS = st.integers(2, 12).flatmap(
    lambda size: st.tuples(*[st.lists(st.floats(-6, 6), min_size=size, max_size=size) for _ in range(2)])
)


def log_softmax(logits: list[float]) -> torch.Tensor:
    return torch.tensor(logits, dtype=torch.float64).log_softmax(-1)


@given(DISTRIBUTIONS)
def test_its_mean_over_the_policy_is_the_exact_divergence(logits: tuple[list[float], list[float]]) -> None:
    policy, reference = map(log_softmax, logits)
    exact = sum(math.exp(p) * (p - q) for p, q in zip(policy.tolist(), reference.tolist(), strict=True))
    mean = (policy.exp() * kl_to_reference(policy, reference)).sum().item()
    assert mean == pytest.approx(exact, abs=1e-9)


@given(st.floats(-20, 0, width=32), st.floats(-20, 0, width=32))
def test_it_is_never_negative_and_zero_where_both_agree(policy: float, reference: float) -> None:
    value = kl_to_reference(torch.tensor([[policy]]), torch.tensor([[reference]])).item()
    assert value >= -1e-6  # rounding of float32
    assert kl_to_reference(torch.tensor([[policy]]), torch.tensor([[policy]])).item() == 0


def test_one_token_by_hand() -> None:
    # The reference gives the token twice the policy's probability: 2 - ln 2 - 1.
    value = kl_to_reference(torch.tensor([[math.log(0.25)]]), torch.tensor([[math.log(0.5)]]))
    assert value.item() == pytest.approx(1 - math.log(2), abs=1e-6)


def test_its_gradient_pulls_towards_the_reference() -> None:
    policy = torch.tensor([-3.0, -1.0, -2.0], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([-1.0, -3.0, -2.0], dtype=torch.float64)
    kl_to_reference(policy, reference).sum().backward()
    torch.testing.assert_close(policy.grad, 1 - (reference - policy.detach()).exp())
