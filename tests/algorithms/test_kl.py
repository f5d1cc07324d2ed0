"""The estimators against the exact KL, by enumeration of a vocabulary, and the controller of its weight by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_platform.algorithms.kl import kl_estimate, next_kl_coef

DISTRIBUTIONS = st.integers(2, 12).flatmap(
    lambda size: st.tuples(*[st.lists(st.floats(-6, 6), min_size=size, max_size=size) for _ in range(2)])
)


def log_softmax(logits: list[float]) -> torch.Tensor:
    return torch.tensor(logits, dtype=torch.float64).log_softmax(-1)


@given(DISTRIBUTIONS)
def test_its_mean_over_the_policy_is_the_exact_divergence(logits: tuple[list[float], list[float]]) -> None:
    policy, reference = map(log_softmax, logits)
    exact = sum(math.exp(p) * (p - q) for p, q in zip(policy.tolist(), reference.tolist(), strict=True))
    mean = (policy.exp() * kl_estimate(policy, reference, "k3")).sum().item()
    assert mean == pytest.approx(exact, abs=1e-9)


@given(st.floats(-20, 0, width=32), st.floats(-20, 0, width=32))
def test_it_is_never_negative_and_zero_where_both_agree(policy: float, reference: float) -> None:
    value = kl_estimate(torch.tensor([[policy]]), torch.tensor([[reference]]), "k3").item()
    assert value >= -1e-6  # rounding of float32
    assert kl_estimate(torch.tensor([[policy]]), torch.tensor([[policy]]), "k3").item() == 0


def test_one_token_by_hand() -> None:
    # The reference gives the token twice the policy's probability: 2 - ln 2 - 1.
    value = kl_estimate(torch.tensor([[math.log(0.25)]]), torch.tensor([[math.log(0.5)]]), "k3")
    assert value.item() == pytest.approx(1 - math.log(2), abs=1e-6)


def test_its_gradient_pulls_towards_the_reference() -> None:
    policy = torch.tensor([-3.0, -1.0, -2.0], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([-1.0, -3.0, -2.0], dtype=torch.float64)
    kl_estimate(policy, reference, "k3").sum().backward()
    torch.testing.assert_close(policy.grad, 1 - (reference - policy.detach()).exp())


@given(DISTRIBUTIONS, st.sampled_from(["k1", "straight_through"]))
def test_the_unbiased_ones_have_the_exact_divergence_as_their_mean(
    logits: tuple[list[float], list[float]], estimator: str
) -> None:
    policy, reference = map(log_softmax, logits)
    exact = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=policy), torch.distributions.Categorical(logits=reference)
    )
    mean = (policy.exp() * kl_estimate(policy, reference, estimator)).sum()
    assert mean.item() == pytest.approx(exact.item(), abs=1e-9)


@pytest.mark.parametrize(
    ("estimator", "value", "gradient"),
    [
        # The policy gives the token half the reference's probability: d = ln 2.
        ("k1", -math.log(2), 1.0),
        ("k2", math.log(2) ** 2 / 2, -math.log(2)),
        ("k3", 1 - math.log(2), -1.0),
        ("straight_through", 1 - math.log(2), -math.log(2)),
    ],
)
def test_value_and_gradient_of_each_by_hand(estimator: str, value: float, gradient: float) -> None:
    policy = torch.tensor([[math.log(0.25)]], dtype=torch.float64, requires_grad=True)
    found = kl_estimate(policy, torch.tensor([[math.log(0.5)]], dtype=torch.float64), estimator)
    found.sum().backward()
    assert found.item() == pytest.approx(value)
    assert policy.grad is not None
    assert policy.grad.item() == pytest.approx(gradient)


@given(DISTRIBUTIONS)
def test_as_a_loss_the_gradient_of_straight_through_is_the_divergences_own(
    logits: tuple[list[float], list[float]],
) -> None:
    """That of k3, and of k1, is not: tokens come from the policy, and its mean does not see them move."""
    reference = log_softmax(logits[1])
    exact = torch.tensor(logits[0], dtype=torch.float64, requires_grad=True)
    log_p = exact.log_softmax(-1)
    (log_p.exp() * (log_p - reference)).sum().backward()
    sampled = exact.detach().clone().requires_grad_()
    log_p = sampled.log_softmax(-1)
    (log_p.exp().detach() * kl_estimate(log_p, reference, "straight_through")).sum().backward()
    torch.testing.assert_close(sampled.grad, exact.grad, rtol=1e-9, atol=1e-9)


def test_as_a_loss_k1_has_no_gradient_in_the_mean() -> None:
    logits = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    policy = logits.log_softmax(-1)
    (policy.exp().detach() * kl_estimate(policy, log_softmax([1.0, 1.0, 0.0]), "k1")).sum().backward()
    torch.testing.assert_close(logits.grad, torch.zeros(3, dtype=torch.float64))


def test_an_unknown_estimator_is_named() -> None:
    with pytest.raises(ValueError, match=r"algorithm.kl_estimator is 'k4': k1, k2, k3 or straight_through"):
        kl_estimate(torch.zeros(1, 1), torch.zeros(1, 1), "k4")


@pytest.mark.parametrize(
    ("kl", "expected"),
    [
        (6.0, 0.2),  # on target
        (6.6, 0.2 * 1.01),  # a tenth of the error of 10 %
        (5.4, 0.2 * 0.99),
        (600.0, 0.2 * 1.02),  # the error counts as 20 % at most
        (0.0, 0.2 * 0.98),
        (-1.0, 0.2 * 0.98),  # k1 can be below 0
    ],
)
def test_the_weight_follows_the_relative_error(kl: float, expected: float) -> None:
    assert next_kl_coef(0.2, kl, 6.0) == pytest.approx(expected)


def test_a_controlled_divergence_comes_to_its_target() -> None:
    """A policy whose KL falls as its weight grows, as 1 / weight, ends where it is wanted."""
    coef = 0.2
    for _ in range(2000):
        coef = next_kl_coef(coef, 1 / coef, 0.5)
    assert coef == pytest.approx(2.0, rel=1e-3)
