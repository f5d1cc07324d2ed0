"""GDPO as a whole, rewards to advantages, against numpy in float64."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rlhf_platform.algorithms.gdpo import batch_normalised
from rlhf_platform.algorithms.grpo import group_advantages

# (terms, prompts, samples): two terms and a third, whose size is far from theirs.
BATCHES = st.tuples(st.integers(1, 4), st.integers(2, 5)).flatmap(
    lambda shape: st.tuples(
        st.lists(
            st.lists(
                st.lists(st.integers(-40, 40).map(lambda n: n / 8), min_size=shape[1], max_size=shape[1]),
                min_size=shape[0],
                max_size=shape[0],
            ),
            min_size=3,
            max_size=3,
        ),
        st.lists(st.lists(st.booleans(), min_size=shape[1], max_size=shape[1]), min_size=shape[0], max_size=shape[0]),
    )
)
WEIGHTS = (1.0, 0.5, 0.25)
Batch = tuple[list[list[list[float]]], list[list[bool]]]


def tensors(batch: Batch) -> tuple[Tensor, Tensor]:
    terms = torch.tensor(batch[0], dtype=torch.float64)
    terms[2] *= 1000
    return terms, torch.tensor(batch[1])


def ours(terms: Tensor, scored: Tensor) -> Tensor:
    sums = sum((w * group_advantages(t, scored) for w, t in zip(WEIGHTS, terms, strict=True)), torch.zeros(()))
    return batch_normalised(sums, scored)


def by_numpy(terms: np.ndarray, scored: np.ndarray) -> np.ndarray:
    sums = np.zeros(scored.shape)
    for weight, term in zip(WEIGHTS, terms, strict=True):
        for row, kept in enumerate(scored):
            values = term[row, kept]
            if len(set(values.tolist())) > 1:
                sums[row, kept] += weight * (values - values.mean()) / values.std(ddof=1)
    whole = sums[scored]
    expected = np.zeros(scored.shape)
    # Terms that cancel out leave rounding, which is no spread.
    if len(whole) > 1 and whole.std() > 1e-6:
        expected[scored] = (whole - whole.mean()) / whole.std(ddof=1)
    return expected


@given(BATCHES)
def test_advantages_are_those_of_the_paper(batch: Batch) -> None:
    terms, scored = tensors(batch)
    np.testing.assert_allclose(ours(terms, scored).numpy(), by_numpy(terms.numpy(), scored.numpy()), atol=1e-9)


@given(BATCHES)
def test_the_size_of_a_term_does_not_matter(batch: Batch) -> None:
    terms, scored = tensors(batch)
    scaled = terms * torch.tensor([8.0, 1.0, 0.25], dtype=torch.float64).view(3, 1, 1)
    torch.testing.assert_close(ours(scaled, scored), ours(terms, scored), rtol=1e-9, atol=1e-9)


@given(BATCHES)
def test_a_failed_sample_leaves_no_trace(batch: Batch) -> None:
    terms, scored = tensors(batch)
    other = torch.where(scored, terms, 1e6)
    assert torch.equal(ours(other, scored), ours(terms, scored))
    assert not ours(terms, scored)[~scored].any()


def test_two_terms_that_a_plain_sum_would_confuse() -> None:
    """One prompt's samples differ in one term, the other's in both: normalising sums cannot tell, the paper's case."""
    easy, hard = torch.tensor([[0.0, 1.0], [0.0, 1.0]]), torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    scored = torch.ones(2, 2, dtype=torch.bool)
    plain = group_advantages(easy + hard, scored)
    assert torch.equal(plain[0], plain[1])
    found = batch_normalised(group_advantages(easy, scored) + group_advantages(hard, scored), scored)
    # Group norms are +-1/sqrt(2); their sums -s, s, -2s, 2s; the second prompt's pair is twice as far apart.
    assert torch.allclose(found[1], 2 * found[0])
