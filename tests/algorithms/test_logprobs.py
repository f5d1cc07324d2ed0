"""Log-probs of the distribution sampled from (law 6) against torch.distributions and numpy in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rlhf_platform.algorithms.logprobs import tiled_logprobs, token_logprobs

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


def test_an_entropy_without_gradient_has_the_same_value_and_adds_nothing() -> None:
    logits, tokens, allowed = case([True, False, True, True], seed=4)
    logits.requires_grad_()
    chosen, entropy = token_logprobs(logits, tokens, allowed, 0.9, entropy_gradient=False)
    assert torch.equal(entropy, token_logprobs(logits, tokens, allowed, 0.9)[1])
    assert chosen.requires_grad
    assert not entropy.requires_grad


def head_case(
    vocabulary: int, bias: bool, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]:
    """States (37, 16), head (V, 16), its bias (V,) or None, allowed tokens (37,) and the mask (V,), whose first and
    last fifth are forbidden: whole tiles of the vocabulary, before and after those that may be sampled."""
    generator = torch.Generator().manual_seed(vocabulary)
    hidden = torch.randn(37, 16, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(vocabulary, 16, generator=generator).to(dtype).requires_grad_()
    shift = torch.randn(vocabulary, generator=generator).to(dtype).requires_grad_() if bias else None
    allowed = torch.rand(vocabulary, generator=generator) < 0.7
    allowed[: vocabulary // 5] = allowed[-vocabulary // 5 :] = False
    choices = allowed.nonzero().squeeze(1)
    tokens = choices[torch.randint(0, len(choices), (37,), generator=generator)]
    return hidden, weight, shift, tokens, allowed


def gradients(
    chosen: Tensor, entropy: Tensor, entropy_gradient: bool, inputs: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Of a sum in which every token weighs differently."""
    share = torch.linspace(-0.5, 1, len(chosen), dtype=chosen.dtype) / len(chosen)
    loss = (chosen * share).sum() + ((entropy * share.flip(0)).sum() if entropy_gradient else 0)
    return torch.autograd.grad(loss, inputs)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("entropy_gradient", [False, True])
@pytest.mark.parametrize("vocabulary", [50, 50_000])
def test_tiles_give_the_values_and_gradients_of_whole_logits_and_of_float64(
    vocabulary: int, entropy_gradient: bool, bias: bool
) -> None:
    hidden, weight, shift, tokens, allowed = head_case(vocabulary, bias)
    inputs = tuple(tensor for tensor in (hidden, weight, shift) if tensor is not None)
    tiled = tiled_logprobs(hidden, weight, shift, tokens, allowed, 0.7, entropy_gradient)
    whole = token_logprobs(torch.nn.functional.linear(hidden, weight, shift), tokens, allowed, 0.7, entropy_gradient)
    double = tuple(tensor.detach().double().requires_grad_() for tensor in inputs)
    scores = torch.nn.functional.linear(*double)[:, allowed] / 0.7
    distribution = torch.distributions.Categorical(logits=scores)
    exact = distribution.log_prob((allowed.cumsum(0) - 1)[tokens]), distribution.entropy()
    for other in (whole, exact):
        for ours, theirs in zip(tiled, other, strict=True):
            torch.testing.assert_close(ours.double(), theirs.double(), rtol=1e-5, atol=1e-5)
    expected = gradients(*exact, entropy_gradient, double)
    for found in (gradients(*tiled, entropy_gradient, inputs), gradients(*whole, entropy_gradient, inputs)):
        for ours, theirs in zip(found, expected, strict=True):
            assert theirs.abs().max() > 1e-3
            torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)
    assert tiled[1].requires_grad == entropy_gradient


def test_tiles_do_not_see_what_a_forbidden_logit_is_and_give_a_forbidden_token_no_probability() -> None:
    hidden, weight, _, tokens, allowed = head_case(9_000, bias=False)
    other = torch.where(allowed.unsqueeze(1), weight, 1e3 * weight)
    tokens[0] = int((~allowed).nonzero()[0])
    ours = tiled_logprobs(hidden, weight, None, tokens, allowed, 0.7, entropy_gradient=True)
    for left, right in zip(ours, tiled_logprobs(hidden, other, None, tokens, allowed, 0.7), strict=True):
        assert torch.equal(left, right)
    assert ours[0].isneginf().nonzero().tolist() == [[0]]
    (to_weight,) = torch.autograd.grad(ours[0][1:].sum() + ours[1].sum(), weight)
    assert (to_weight[~allowed] == 0).all()
    assert torch.isfinite(to_weight).all()


def test_tiles_of_bfloat16_mask_as_exactly() -> None:
    hidden, weight, _, tokens, allowed = head_case(9_000, bias=False, dtype=torch.bfloat16)
    found = tiled_logprobs(hidden, weight, None, tokens, allowed, 0.7, entropy_gradient=True)
    expected = token_logprobs(hidden @ weight.T, tokens, allowed, 0.7)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    for gradient in torch.autograd.grad(found[0].sum() + found[1].sum(), (hidden, weight)):
        assert torch.isfinite(gradient).all()


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        made = operation(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, list | tuple) else (made,):
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return made


@pytest.mark.parametrize("entropy_gradient", [False, True])
def test_tiles_never_hold_a_value_per_token_and_vocabulary_entry(entropy_gradient: bool) -> None:
    hidden, weight, _, tokens, allowed = head_case(50_000, bias=False)
    with Largest() as tiled:
        found = tiled_logprobs(hidden, weight, None, tokens, allowed, 0.7, entropy_gradient)
        gradients(*found, entropy_gradient, (hidden, weight))
    assert tiled.elements == weight.numel()  # the head itself, and its gradient
    with Largest() as whole:
        gradients(*token_logprobs(hidden @ weight.T, tokens, allowed, 0.7), True, (hidden, weight))
    assert whole.elements == len(tokens) * len(weight)
