"""GSPO's loss against its objective and the gradient that the paper derives, in float64."""

import math

import torch

from rlhf_platform.algorithms.gspo import sequence_surrogate

F64 = torch.float64


def test_a_sequence_by_hand() -> None:
    # Ratios 2 and 0.5 cancel over two tokens; 1.1 and 1.1 do not; padding is not looked at.
    log_ratio = torch.tensor([[2.0, 0.5, 7.0], [1.1, 1.1, 9.0]], dtype=F64).log()
    mask = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]], dtype=F64)
    loss, clipped = sequence_surrogate(log_ratio, mask, torch.tensor([[3.0], [3.0]], dtype=F64), 0.02, 0.03)
    torch.testing.assert_close(loss[:, 0], torch.tensor([-3.0, -3.09], dtype=F64))
    assert (loss == loss[:, :1]).all()
    # All tokens of a clipped sequence are.
    assert clipped.tolist() == [[False] * 3, [True] * 3]


def test_the_gradient_is_that_of_the_paper() -> None:
    """Section 4.2: s_i A_i / |y_i| for every token's log-prob, nothing where the sequence is clipped."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 7, (40, 1), generator=generator)
    mask = (torch.arange(6) < lengths).to(F64)
    log_ratio = 0.3 * torch.randn(40, 6, generator=generator, dtype=F64)
    advantages = torch.randn(40, 1, generator=generator, dtype=F64)
    log_ratio.requires_grad_()
    loss, clipped = sequence_surrogate(log_ratio, mask, advantages, 0.1, 0.15)
    ((loss * mask).sum(-1) / lengths.squeeze(-1)).mean().backward()

    expected = torch.zeros(40, 6, dtype=F64)
    for i in range(40):
        n, a = int(lengths[i]), advantages[i].item()
        s = math.prod(log_ratio[i, :n].exp().tolist()) ** (1 / n)
        beyond = s > 1.15 if a > 0 else s < 0.9
        assert clipped[i].all() == clipped[i].any() == beyond
        if not beyond:
            expected[i, :n] = -s * a / n / 40
    torch.testing.assert_close(log_ratio.grad, expected)
    assert 0 < clipped[:, 0].sum() < 40


def test_a_sample_that_does_not_count_is_finite() -> None:
    loss, clipped = sequence_surrogate(torch.full((1, 3), 5.0), torch.zeros(1, 3), torch.zeros(1, 1), 3e-4, 4e-4)
    assert torch.isfinite(loss).all()
    assert not clipped.any()
