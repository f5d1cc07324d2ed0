"""Log-probs of the distribution sampled from (law 6) against torch.distributions and numpy in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_platform.algorithms.logprobs import token_logprobs

ALLOWED = st.integers(2, 16).flatmap(
    lambda size: st.lists(st.booleans(), min_size=size, max_size=size).filter(lambda allowed: any(allowed))
)


def case(allowed: list[bool], seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits (2, 3, V), tokens (2, 3) among the allowed ones, the mask (V,)."""
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(2, 3, len(allowed), generator=generator)
    choices = torch.tensor([i for i, ok in enumerate(allowed) if ok])
    tokens = choices[torch.randint(0, len(choices), (2, 3), generator=generator)]
    return logits, tokens, torch.tensor(allowed)


@given(ALLOWED, st.integers(0, 2**31), st.floats(0.1, 5))
def test_values_are_those_of_the_tempered_distribution_over_the_allowed_tokens(
    allowed: list[bool], seed: int, temperature: float
) -> None:
    logits, tokens, mask = case(allowed, seed)
    chosen, entropy = token_logprobs(logits, tokens, mask, temperature)
    # The distribution that has the allowed tokens only, under their rank among the allowed.
    rank = mask.cumsum(0) - 1
    expected = torch.distributions.Categorical(logits=logits.double()[..., mask] / temperature)
    torch.testing.assert_close(chosen.double(), expected.log_prob(rank[tokens]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(entropy.double(), expected.entropy(), rtol=1e-4, atol=1e-5)


@given(ALLOWED, st.integers(0, 2**31), st.floats(0.1, 5))
def test_entropy_by_enumeration_in_numpy(allowed: list[bool], seed: int, temperature: float) -> None:
    logits, tokens, mask = case(allowed, seed)
    weights = np.exp(logits.double().numpy() / temperature) * mask.numpy()
    share = weights / weights.sum(-1, keepdims=True)
    information = -np.log(share, where=share > 0, out=np.zeros_like(share))
    _, entropy = token_logprobs(logits, tokens, mask, temperature)
    np.testing.assert_allclose(entropy.numpy(), (share * information).sum(-1), atol=1e-4)


def test_probabilities_of_all_tokens_sum_to_one_and_a_disallowed_one_has_none() -> None:
    logits = torch.randn(1, 1, 6, generator=torch.Generator().manual_seed(0)).expand(1, 6, 6)
    allowed = torch.tensor([True, False, True, True, False, True])
    chosen, _ = token_logprobs(logits, torch.arange(6).unsqueeze(0), allowed, 0.7)
    assert torch.equal(chosen[0].isneginf(), ~allowed)
    assert chosen.exp().sum().item() == pytest.approx(1, abs=1e-6)


def test_what_a_disallowed_logit_is_does_not_matter() -> None:
    logits, tokens, allowed = case([True, False, True, True], seed=1)
    other = logits.clone()
    other[..., 1] = 1e4
    for ours, theirs in zip(
        token_logprobs(logits, tokens, allowed, 1.0), token_logprobs(other, tokens, allowed, 1.0), strict=True
    ):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_the_gradient_is_finite_and_that_of_float64(scale: float) -> None:
    logits, tokens, allowed = case([True, False, True, True, False], seed=2)
    logits = (logits * scale).requires_grad_()
    chosen, entropy = token_logprobs(logits, tokens, allowed, 0.9)
    (chosen + entropy).sum().backward()
    reference = logits.detach().double().requires_grad_()
    rank = allowed.cumsum(0) - 1
    expected = torch.distributions.Categorical(logits=reference[..., allowed] / 0.9)
    (expected.log_prob(rank[tokens]) + expected.entropy()).sum().backward()
    assert logits.grad is not None
    assert reference.grad is not None
    assert torch.isfinite(logits.grad).all()
    torch.testing.assert_close(logits.grad.double(), reference.grad, rtol=1e-3, atol=1e-5)


def test_logits_of_lower_precision_are_raised_to_float32_first() -> None:
    logits, tokens, allowed = case([True, True, False, True], seed=3)
    chosen, _ = token_logprobs(logits.bfloat16(), tokens, allowed, 0.8)
    expected, _ = token_logprobs(logits.bfloat16().float(), tokens, allowed, 0.8)
    assert chosen.dtype == torch.float32
    assert torch.equal(chosen, expected)
