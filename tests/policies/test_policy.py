"""`Policy.forward` against the plain Transformers model, one unpadded clip and completion at a time (law 6)."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import policies.policy
from policies.batch import PolicyBatch, make_batch
from policies.policy import Policy
from policies.qwen3_asr import Qwen3ASRAdapter
from rlhf_platform.types import Prompt

TEMPERATURE = 0.8
COMPLETIONS = ("alpha", "bravo seven nine two", "", "echo")
ROWS = tuple((clip, text) for clip in range(4) for text in range(4))


@pytest.fixture(scope="module")
def policy(adapter: Qwen3ASRAdapter) -> Policy:
    return Policy(adapter, adapter.load_model(torch.float32), TEMPERATURE, freeze_encoder=True).eval()


def batch_of(adapter: Qwen3ASRAdapter, clips: Sequence[Prompt], rows: Sequence[tuple[int, int]]) -> PolicyBatch:
    """Rows of (clip, completion), each clip once."""
    used = sorted({clip for clip, _ in rows})
    completions = [adapter.transcript_tokens(COMPLETIONS[text]) for _, text in rows]
    index = [used.index(clip) for clip, _ in rows]
    return make_batch([adapter.encode(clips[c]) for c in used], index, completions, adapter.tokenizer.pad_token_id)


def by_transformers(policy: Policy, clip: Prompt, tokens: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies (T,) by the model's own forward and a log_softmax over the allowed tokens alone."""
    adapter = policy.adapter
    encoded = adapter.encode(clip)
    with torch.no_grad():
        logits = policy.model(
            input_ids=torch.tensor([[*encoded.token_ids, *tokens]]),
            input_features=encoded.clips[0].features[None],
            input_features_mask=encoded.clips[0].mask[None],
        ).logits[0, len(encoded.token_ids) - 1 : -1]
    allowed = list(adapter.completion_token_ids)
    distribution = torch.distributions.Categorical(logits=logits[:, allowed].double() / TEMPERATURE)
    return distribution.log_prob(torch.tensor([allowed.index(t) for t in tokens])), distribution.entropy()


@pytest.fixture(scope="module")
def alone(
    policy: Policy, adapter: Qwen3ASRAdapter, clips: list[Prompt]
) -> dict[tuple[int, int], tuple[Tensor, Tensor]]:
    """Each row's values by Transformers."""
    return {row: by_transformers(policy, clips[row[0]], adapter.transcript_tokens(COMPLETIONS[row[1]])) for row in ROWS}


def test_a_whole_batch_gives_what_transformers_gives_row_by_row(
    policy: Policy, adapter: Qwen3ASRAdapter, clips: list[Prompt], alone: dict
) -> None:
    with torch.no_grad():
        logprobs, entropy = policy(batch_of(adapter, clips, ROWS))
    for row, expected in enumerate(alone.values()):
        length = len(expected[0])
        torch.testing.assert_close(logprobs[row, :length].double(), expected[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(entropy[row, :length].double(), expected[1], rtol=0, atol=1e-5)
        assert (logprobs[row, length:] == 0).all()
    assert torch.isfinite(entropy).all()
    # Clips and completions do differ: a model that ignores the audio would pass the rest of this file.
    assert (alone[0, 0][0] - alone[3, 0][0]).abs().max() > 1e-2


@settings(max_examples=20)
@given(rows=st.lists(st.sampled_from(ROWS), min_size=1, max_size=6))
def test_a_row_depends_on_no_other_and_on_no_padding(
    policy: Policy, adapter: Qwen3ASRAdapter, clips: list[Prompt], alone: dict, rows: list[tuple[int, int]]
) -> None:
    with torch.no_grad():
        logprobs, _ = policy(batch_of(adapter, clips, rows))
    for values, row in zip(logprobs, rows, strict=True):
        expected = alone[row][0]
        torch.testing.assert_close(values[: len(expected)].double(), expected, rtol=0, atol=1e-5)


def test_what_stands_in_the_padding_does_not_matter(
    policy: Policy, adapter: Qwen3ASRAdapter, clips: list[Prompt]
) -> None:
    batch = batch_of(adapter, clips, ROWS[:2] + ROWS[-2:])
    with torch.no_grad():
        expected, _ = policy(batch)
        batch.features.masked_fill_((batch.features_mask == 0).unsqueeze(1), 0.0)
        batch.completion_ids.masked_fill_(batch.completion_mask == 0, adapter.end_token_ids[0])
        batch.input_ids.masked_fill_(batch.attention_mask == 0, 5)
        changed, _ = policy(batch)
    torch.testing.assert_close(changed, expected, rtol=0, atol=1e-6)


def test_all_one_token_completions_together_have_probability_one(
    policy: Policy, adapter: Qwen3ASRAdapter, clips: list[Prompt]
) -> None:
    allowed = adapter.completion_token_ids
    encoded = [adapter.encode(clips[0])]
    batch = make_batch(encoded, [0] * len(allowed), [[t] for t in allowed], adapter.tokenizer.pad_token_id)
    with torch.no_grad():
        logprobs, _ = policy(batch)
    assert logprobs.exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_kept_encoder_output_gives_the_same(policy: Policy, adapter: Qwen3ASRAdapter, clips: list[Prompt]) -> None:
    batch = batch_of(adapter, clips, ROWS[::3])
    with torch.no_grad():
        assert torch.equal(policy(batch, policy.encode(batch))[0], policy(batch)[0])


def test_entropy_has_a_gradient_only_when_asked(adapter: Qwen3ASRAdapter, clips: list[Prompt]) -> None:
    batch = batch_of(adapter, clips, ROWS[::5])
    looked_at, learnt_from = (
        Policy(adapter, adapter.load_model(torch.float32), TEMPERATURE, True, entropy_gradient=asked).eval()(batch)
        for asked in (False, True)
    )
    assert not looked_at[1].requires_grad
    assert learnt_from[1].requires_grad
    torch.testing.assert_close(looked_at, learnt_from, rtol=0, atol=1e-6)


@pytest.mark.parametrize("entropy_gradient", [False, True])
def test_over_a_large_vocabulary_tiles_give_the_same_values_and_gradients(
    adapter: Qwen3ASRAdapter, clips: list[Prompt], entropy_gradient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = batch_of(adapter, clips, ROWS)
    found = []
    for large_from in (policies.policy.TILED_FROM, 1):
        monkeypatch.setattr(policies.policy, "TILED_FROM", large_from)
        policy = Policy(adapter, adapter.load_model(torch.float32), TEMPERATURE, False, entropy_gradient).eval()
        logprobs, entropy = policy(batch)
        (logprobs.mean() + (entropy.mean() if entropy_gradient else 0)).backward()
        found.append((logprobs, entropy, {n: p.grad for n, p in policy.model.named_parameters()}))
        # The head still is one, for those who call it otherwise.
        head = policy.model.get_output_embeddings()
        assert head(torch.ones(1, head.in_features)).shape == (1, head.out_features)
    whole, tiled = found
    torch.testing.assert_close(tiled[:2], whole[:2], rtol=0, atol=1e-5)
    assert not torch.equal(tiled[1], whole[1])  # by another way
    for name, expected in whole[2].items():
        torch.testing.assert_close(tiled[2][name], expected, rtol=1e-4, atol=1e-5)
    assert tiled[2]["lm_head.weight"].abs().max() > 1e-3


@pytest.mark.parametrize("freeze", [True, False])
def test_a_frozen_encoder_gets_no_gradient_and_all_else_a_finite_one(
    adapter: Qwen3ASRAdapter, clips: list[Prompt], freeze: bool
) -> None:
    policy = Policy(adapter, adapter.load_model(torch.float32), TEMPERATURE, freeze, entropy_gradient=True).eval()
    logprobs, entropy = policy(batch_of(adapter, clips, ((0, 2), (1, 1), (3, 0))))  # most positions are padding
    (logprobs.sum() + entropy.sum()).backward()
    for name, parameter in policy.model.named_parameters():
        if freeze and name.startswith("model.audio_tower."):
            assert not parameter.requires_grad
            assert parameter.grad is None, name
            continue
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        # A key's bias shifts all scores of a query alike, which the softmax takes out.
        assert parameter.grad.abs().max() > 0 or name.endswith("k_proj.bias"), name


def test_padded_positions_add_nothing_to_the_gradient(adapter: Qwen3ASRAdapter, clips: list[Prompt]) -> None:
    rows = ((0, 2), (1, 1), (3, 0))
    policy = Policy(adapter, adapter.load_model(torch.float32), TEMPERATURE, freeze_encoder=True).eval()
    policy(batch_of(adapter, clips, rows))[0].sum().backward()
    together = {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}
    policy.zero_grad()
    for row in rows:
        policy(batch_of(adapter, clips, (row,)))[0].sum().backward()
    for name, parameter in policy.model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(together[name], parameter.grad, rtol=1e-3, atol=1e-4)
