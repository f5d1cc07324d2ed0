"""What rollout and learner compute differently: the weight that corrects it and the number that shows it."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_platform.algorithms.importance import effective_sample_share, importance_weights, max_mismatch

PAIRS = st.lists(st.tuples(st.floats(-8, 0, width=32), st.floats(-8, 0, width=32)), min_size=1, max_size=10)


@given(PAIRS, st.floats(1, 100))
def test_the_weight_is_the_ratio_up_to_the_cap(pairs: list[tuple[float, float]], cap: float) -> None:
    learner, behaviour = (torch.tensor([column]) for column in zip(*pairs, strict=True))
    expected = [min(math.exp(ours - theirs), cap) for ours, theirs in pairs]
    weight = importance_weights(learner, behaviour, torch.ones_like(learner), "token", cap)
    torch.testing.assert_close(weight, torch.tensor([expected]), rtol=1e-5, atol=1e-6)


def test_the_weight_carries_no_gradient() -> None:
    learner = torch.zeros(1, 2, requires_grad=True)
    assert not importance_weights(learner, torch.zeros(1, 2), torch.ones(1, 2), "token", 2.0).requires_grad


def test_the_weighted_gradient_is_that_of_the_learners_own_distribution() -> None:
    """E over rollout of w * f = E over learner of f, by enumeration, as long as nothing is capped."""
    torch.manual_seed(0)
    learner = torch.randn(7, dtype=torch.float64).log_softmax(-1)
    behaviour = (learner + 0.1 * torch.randn(7, dtype=torch.float64)).log_softmax(-1)
    value = torch.randn(7, dtype=torch.float64)
    # Seven samples of one token.
    columns = learner.unsqueeze(1), behaviour.unsqueeze(1), torch.ones(7, 1)
    weights = importance_weights(*columns, "token", 2.0).squeeze(1)
    corrected = (behaviour.exp() * weights * value).sum()
    assert corrected.item() == pytest.approx((learner.exp() * value).sum().item(), abs=1e-12)


def test_the_largest_mismatch_is_over_completion_tokens_only() -> None:
    learner = torch.tensor([[-1.0, -2.0, 0.0], [-0.5, 0.0, -9.0]])
    behaviour = torch.tensor([[-1.5, -1.9, 0.0], [-0.5, 0.0, 0.0]])
    mask = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    assert max_mismatch(learner, behaviour, mask).item() == pytest.approx(0.5)
    assert max_mismatch(learner, behaviour, torch.zeros(2, 3)).item() == 0


def test_a_log_prob_that_is_no_number_shows_in_the_mismatch() -> None:
    learner = torch.tensor([[-1.0, float("nan")]])
    assert max_mismatch(learner, torch.zeros(1, 2), torch.ones(1, 2)).isnan()


KINDS = ("token", "sequence", "token_mask", "sequence_mask")
ROWS = st.lists(st.lists(st.tuples(st.floats(-8, 0), st.floats(-8, 0)), min_size=1, max_size=5), min_size=1, max_size=5)
Rows = list[list[tuple[float, float]]]


def padded(rows: Rows, extra: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Learner, behaviour and mask, (B, T) in float64, padded with what must not count."""
    size = max(map(len, rows)) + extra
    learner = torch.full((len(rows), size), math.nan, dtype=torch.float64)
    behaviour, mask = learner.clone(), torch.zeros_like(learner)
    for row, tokens in enumerate(rows):
        learner[row, : len(tokens)], behaviour[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.float64).T
        mask[row, : len(tokens)] = 1.0
    return learner, behaviour, mask


def bounded(log_ratio: float, kind: str, cap: float) -> float:
    ratio = math.exp(log_ratio)
    if kind.endswith("mask"):
        return ratio if 1 / cap <= ratio <= cap else 0.0
    return min(ratio, cap)


@pytest.mark.parametrize("kind", KINDS)
@given(rows=ROWS, cap=st.floats(1, 100), extra=st.integers(0, 2))
def test_each_kind_as_written(kind: str, rows: Rows, cap: float, extra: int) -> None:
    learner, behaviour, mask = padded(rows, extra)
    expected = torch.zeros_like(mask)
    for row, tokens in enumerate(rows):
        apart = [ours - theirs for ours, theirs in tokens]
        if kind.startswith("sequence"):
            apart = [sum(apart)] * len(apart)
        expected[row, : len(tokens)] = torch.tensor([bounded(x, kind, cap) for x in apart], dtype=torch.float64)
    torch.testing.assert_close(importance_weights(learner, behaviour, mask, kind, cap), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_programs_that_agree_need_no_correction(kind: str) -> None:
    logprobs, mask = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), torch.ones(3, 4)
    assert torch.equal(importance_weights(logprobs, logprobs, mask, kind, 1.0), mask)


@pytest.mark.parametrize("kind", KINDS)
def test_a_log_prob_that_is_no_number_shows_in_the_weight(kind: str) -> None:
    learner = torch.tensor([[-1.0, float("nan")]])
    assert importance_weights(learner, torch.zeros(1, 2), torch.ones(1, 2), kind, 2.0).isnan().any()


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match=r"algorithm.importance is 'tokens'"):
        importance_weights(torch.zeros(1, 1), torch.zeros(1, 1), torch.ones(1, 1), "tokens", 2.0)


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=20), st.floats(0.1, 10))
def test_the_effective_share_does_not_know_the_unit_of_weights(weights: list[float], unit: float) -> None:
    def share(values: list[float]) -> float:
        return effective_sample_share(sum(values), sum(v * v for v in values), len(values))

    assert 1 / len(weights) - 1e-9 <= share(weights) <= 1 + 1e-9
    assert share([unit * weight for weight in weights]) == pytest.approx(share(weights))


def test_the_effective_share_by_hand() -> None:
    assert effective_sample_share(4.0, 4.0, 4) == 1  # four weights of 1
    assert effective_sample_share(2.0, 2.0, 4) == 0.5  # two of them dropped
    assert effective_sample_share(4.0, 10.0, 2) == 0.8  # 1 and 3
    assert effective_sample_share(0.0, 0.0, 0) == 0
    assert effective_sample_share(0.0, 0.0, 3) == 0  # all dropped
