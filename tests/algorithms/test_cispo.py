"""CISPO's loss and gradient against equations 4 and 5, in plain Python floats."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_platform.algorithms.cispo import capped_policy_gradient

LOGPROB = st.floats(-5, 0, width=32)
ROWS = st.lists(st.tuples(LOGPROB, LOGPROB, st.sampled_from((-1.5, 0.0, 0.5))), min_size=1, max_size=8)


@given(ROWS, st.floats(1.01, 100))
def test_any_tokens_as_written_in_the_paper(rows: list[tuple[float, float, float]], cap: float) -> None:
    new, old, advantage = (torch.tensor([column], dtype=torch.float64) for column in zip(*rows, strict=True))
    new.requires_grad_()
    loss, clipped = capped_policy_gradient(new, old, advantage, cap)
    loss.sum().backward()
    weights = [min(math.exp(now - before), cap) for now, before, _ in rows]
    values = [-w * a * now for w, (now, _, a) in zip(weights, rows, strict=True)]
    gradient = [-w * a for w, (_, _, a) in zip(weights, rows, strict=True)]
    torch.testing.assert_close(loss, torch.tensor([values], dtype=torch.float64))
    # The weight is a constant, and a token beyond the cap still learns.
    torch.testing.assert_close(new.grad, torch.tensor([gradient], dtype=torch.float64))
    assert clipped.tolist() == [[math.exp(now - before) > cap and a != 0 for now, before, a in rows]]
