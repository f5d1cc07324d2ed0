"""What a loss is a mean over, against plain Python sums, and whatever way the batch was split (law 5)."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_platform.algorithms.normalization import token_shares, units

KINDS = ("token", "sequence", "length")
LONGEST = 10
SAMPLES = st.lists(
    st.tuples(st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=7), st.booleans()), min_size=1, max_size=9
)
Samples = list[tuple[list[float], bool]]


def padded(samples: Samples, extra: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses (B, T) and mask (B, T) of (token losses, whether the sample counts), padded with what must not count."""
    size = max(len(values) for values, _ in samples) + extra
    loss = torch.full((len(samples), size), 1e6, dtype=torch.float64)
    mask = torch.zeros(len(samples), size, dtype=torch.float64)
    for row, (values, counts) in enumerate(samples):
        loss[row, : len(values)] = torch.tensor(values, dtype=torch.float64)
        mask[row, : len(values)] = float(counts)
    return loss, mask


def mean(parts: list[Samples], kind: str) -> float:
    """Over parts that know nothing of each other, padded each in its own way."""
    total = count = 0.0
    for extra, part in enumerate(parts):
        loss, mask = padded(part, extra)
        total += float((loss * token_shares(mask, kind, LONGEST)).sum())
        count += float(units(mask, kind))
    return total / max(count, 1.0)


def by_hand(samples: Samples, kind: str) -> float:
    kept = [values for values, counts in samples if counts]
    if not kept:
        return 0.0
    if kind == "token":
        return sum(map(sum, kept)) / sum(map(len, kept))
    return sum(sum(values) / (len(values) if kind == "sequence" else LONGEST) for values in kept) / len(kept)


@pytest.mark.parametrize("kind", KINDS)
@given(SAMPLES)
def test_each_mean_as_written_in_its_paper(kind: str, samples: Samples) -> None:
    assert mean([samples], kind) == pytest.approx(by_hand(samples, kind), abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@given(SAMPLES, st.data())
def test_neither_the_split_nor_the_order_changes_the_mean(kind: str, samples: Samples, data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(samples))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(samples)), max_size=4)) | {0, len(samples)})
    parts = [shuffled[start:end] for start, end in pairwise(cuts)]
    assert mean(parts, kind) == pytest.approx(mean([samples], kind), abs=1e-9)


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match=r"algorithm.normalization is 'tokens'"):
        token_shares(torch.ones(1, 1), "tokens", 1)
