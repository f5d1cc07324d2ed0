"""Masks by modality and by turn, against a walk over the tokens."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rlhf_platform.algorithms.token_masks import modality_mask, turn_mask

TEXT, OTHER_TEXT, AUDIO, OTHER_AUDIO, END, OTHER_END = range(6)
IS_AUDIO = torch.tensor([False, False, True, True, False, False])
IS_END = torch.tensor([False, False, False, False, True, True])
BATCHES = st.lists(
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=6, max_size=6), min_size=1, max_size=5
)
Batch = list[list[tuple[int, bool]]]


def tensors(batch: Batch) -> tuple[Tensor, Tensor]:
    """Tokens and mask, (B, T); what is outside the mask is no token at all."""
    tokens = torch.tensor([[token if counts else -100 for token, counts in row] for row in batch])
    return tokens, torch.tensor([[float(counts) for _, counts in row] for row in batch])


@pytest.mark.parametrize("which", ["text", "audio"])
@given(batch=BATCHES)
def test_a_modality_is_its_tokens_and_the_ends_after_them(which: str, batch: Batch) -> None:
    tokens, mask = tensors(batch)
    expected = torch.zeros_like(mask)
    for row, sample in enumerate(batch):
        last = ""
        for t, (token, counts) in enumerate(sample):
            if not counts:
                continue
            if token not in (END, OTHER_END):
                last = "audio" if token in (AUDIO, OTHER_AUDIO) else "text"
            expected[row, t] = float(last in ("", which))
    assert torch.equal(modality_mask(tokens, IS_AUDIO, IS_END, which, mask), expected)


@given(BATCHES)
def test_the_last_turn_is_what_follows_the_last_end_before_the_last_token(batch: Batch) -> None:
    tokens, mask = tensors(batch)
    expected = torch.zeros_like(mask)
    for row, sample in enumerate(batch):
        kept = [t for t, (_, counts) in enumerate(sample) if counts]
        for i, t in enumerate(reversed(kept)):
            if i > 0 and sample[t][0] in (END, OTHER_END):
                break
            expected[row, t] = 1.0
    assert torch.equal(turn_mask(tokens, IS_END, "last", mask), expected)


@given(BATCHES)
def test_all_is_the_mask_itself(batch: Batch) -> None:
    tokens, mask = tensors(batch)
    assert torch.equal(modality_mask(tokens, IS_AUDIO, IS_END, "all", mask), mask)
    assert torch.equal(turn_mask(tokens, IS_END, "all", mask), mask)


@given(BATCHES)
def test_of_what_is_learnt_at_all_something_is_left(batch: Batch) -> None:
    tokens, mask = tensors(batch)
    assert torch.equal(turn_mask(tokens, IS_END, "last", mask).any(-1), mask.any(-1))
    text, audio = (modality_mask(tokens, IS_AUDIO, IS_END, which, mask) for which in ("text", "audio"))
    assert torch.equal(torch.maximum(text, audio), mask)


def test_a_completion_of_two_turns_by_hand() -> None:
    tokens = torch.tensor([[TEXT, AUDIO, END, TEXT, OTHER_END, 0], [AUDIO, AUDIO, END, AUDIO, TEXT, TEXT]])
    mask = torch.tensor([[1.0, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]])
    assert modality_mask(tokens, IS_AUDIO, IS_END, "text", mask).tolist() == [[1, 0, 0, 1, 1, 0], [0, 0, 0, 0, 1, 1]]
    assert modality_mask(tokens, IS_AUDIO, IS_END, "audio", mask).tolist() == [[0, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0]]
    # The second was cut: its last turn has no end.
    assert turn_mask(tokens, IS_END, "last", mask).tolist() == [[0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1]]


def test_silence_is_learnt_in_either_modality() -> None:
    tokens, mask = torch.tensor([[END, 0]]), torch.tensor([[True, False]])
    for which in ("text", "audio"):
        assert modality_mask(tokens, IS_AUDIO, IS_END, which, mask).tolist() == [[True, False]]


def test_an_unknown_choice_is_named() -> None:
    tokens, mask = torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1)
    with pytest.raises(ValueError, match=r"algorithm.train_tokens is 'speech': all, text or audio"):
        modality_mask(tokens, IS_AUDIO, IS_END, "speech", mask)
    with pytest.raises(ValueError, match=r"algorithm.train_turns is 'first': all or last"):
        turn_mask(tokens, IS_END, "first", mask)
