"""Completions that share a row with their prompt are what they are in rows of their own, in every layout that packs."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from policies.batch import make_batch, packed_rows
from policies.load import load_adapter
from policies.policy import Policy
from rlhf_platform.types import Prompt
from tests.layouts import HEARING, LAYOUTS

LENGTHS = (3, 1, 6, 2, 5, 4, 1)
OF_PROMPT = (0, 0, 0, 1, 1, 1, 2)
PACKING = [name for name in LAYOUTS if name != "whisper"]


def prompts_for(name: str, clips: list[Prompt]) -> list[Prompt]:
    """Two clips and a text, or three texts for what hears nothing."""
    written = [
        Prompt(f"w{i}", "", text, "en", metadata={"text": text}) for i, text in enumerate(("one", "two six", "a"))
    ]
    return [clips[3], clips[0], written[0]] if name in HEARING else written


@pytest.mark.parametrize("most", [1024, 90, 40])
@pytest.mark.parametrize("name", PACKING)
def test_packed_log_probs_and_gradients_are_those_of_rows_of_their_own(
    name: str, most: int, clips: list[Prompt], tmp_path: Path
) -> None:
    LAYOUTS[name].build(tmp_path, LAYOUTS[name].ties[0])
    adapter = load_adapter(LAYOUTS[name].adapter, tmp_path)
    assert adapter.packs
    allowed = adapter.completion_token_ids
    completions = [[allowed[(7 * i + 3 * k) % min(90, len(allowed))] for k in range(n)] for i, n in enumerate(LENGTHS)]
    encoded = [adapter.encode(prompt) for prompt in prompts_for(name, clips)]
    found = []
    for packed in (0, most):
        policy = Policy(adapter, adapter.load_model(torch.float32), 0.8, freeze_encoder=False).eval()
        batch = make_batch(encoded, OF_PROMPT, completions, adapter.tokenizer.pad_token_id, packed)
        logprobs, entropy = policy(batch)
        (logprobs * torch.linspace(-1, 1, len(LENGTHS)).unsqueeze(1)).sum().backward()
        gradients = {n: p.grad for n, p in policy.named_parameters() if p.grad is not None}
        found.append((batch, logprobs, entropy, gradients))
    (alone, *expected, whole), (shared, *values, again) = found
    assert len(alone.input_ids) == len(LENGTHS)
    if most == 1024:
        assert len(shared.input_ids) == 3
        assert shared.attention_mask.sum() < alone.attention_mask.sum()
    for ours, theirs in zip(values, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)
    assert again.keys() == whole.keys()
    for parameter, gradient in whole.items():
        torch.testing.assert_close(
            again[parameter], gradient, rtol=1e-3, atol=2e-5, msg=lambda m, p=parameter: f"{p}: {m}"
        )


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 20)), min_size=1, max_size=20), st.integers(0, 60))
def test_rows_hold_neighbours_of_one_prompt_within_the_bound(samples: list[tuple[int, int]], most: int) -> None:
    index, lengths = [prompt for prompt, _ in samples], [length for _, length in samples]
    prompts = [5, 1, 30, 12]
    rows = packed_rows(index, prompts, lengths, most)
    assert [i for row in rows for i in row] == list(range(len(samples)))
    for row in rows:
        assert len({index[i] for i in row}) == 1
        assert len(row) == 1 or prompts[index[row.start]] + sum(lengths[i] for i in row) <= most
