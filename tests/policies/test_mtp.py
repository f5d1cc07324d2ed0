"""Heads of multi-token prediction: what they start as, what they compute, and that a draft changes no text."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from policies.adapter import PolicyAdapter
from policies.batch import make_batch
from policies.load import load_adapter
from policies.mtp.acceptance import Acceptance
from policies.mtp.decode import Decoded, Decoder
from policies.mtp.heads import FOLDER, MtpHeads, check_folder, load_heads, new_heads, rope_of
from policies.mtp.policy import MtpPolicy, offset_losses, read_by_heads
from rlhf_platform.algorithms.mtp_loss import mtp_loss, offset_weights
from rlhf_platform.errors import RecipeError
from rlhf_platform.types import Prompt
from tests.drafting import LIMIT


def loaded(path: Path) -> tuple[PolicyAdapter, torch.nn.Module]:
    adapter = load_adapter("qwen3_asr", path)
    return adapter, adapter.load_model(torch.float32).eval()


def greedy(adapter: PolicyAdapter, model: torch.nn.Module, prompt: Prompt, limit: int) -> tuple[int, ...]:
    """The most likely completion, by a whole forward for each token."""
    allowed = torch.tensor(adapter.completion_token_ids)
    tokens: list[int] = []
    while len(tokens) < limit and not set(tokens[-1:]) & set(adapter.end_token_ids):
        batch = make_batch([adapter.encode(prompt)], [0], [tokens], 0)
        with torch.no_grad():
            clips = adapter.audio_states(model, *batch.audio)
            logits = model.get_output_embeddings()(adapter.hidden_states(model, batch, clips)[0, -1])
        tokens.append(int(allowed[logits[allowed].argmax()]))
    return tuple(tokens)


def whole(adapter: PolicyAdapter, model: torch.nn.Module, prompts: list[Prompt], said: list[tuple[int, ...]]) -> tuple:
    batch = make_batch([adapter.encode(prompt) for prompt in prompts], range(len(prompts)), said, 0)
    clips = adapter.audio_states(model, *batch.audio)
    return batch, adapter.hidden_states(model, batch, clips)


def test_each_block_starts_as_the_last_decoder_layer(tiny_checkpoint: Path) -> None:
    adapter, model = loaded(tiny_checkpoint)
    heads = new_heads(model, 3, adapter.end_token_ids)
    last = model.get_decoder().layers[-1].state_dict()
    for block in heads.blocks:
        assert block.layer.state_dict().keys() == last.keys()
        assert all(torch.equal(value, last[name]) for name, value in block.layer.state_dict().items())
        assert torch.equal(block.norm.weight, model.get_decoder().norm.weight)
    # Copies of their own: one that learns leaves the others and the backbone alone.
    weights = [block.layer.mlp.up_proj.weight.data_ptr() for block in heads.blocks]
    assert len({*weights, model.get_decoder().layers[-1].mlp.up_proj.weight.data_ptr()}) == 4


def test_a_first_block_that_reads_the_state_alone_is_the_last_decoder_layer(tiny_checkpoint: Path) -> None:
    adapter, model = loaded(tiny_checkpoint)
    heads, decoder = new_heads(model, 1, adapter.end_token_ids), model.get_decoder()
    width = decoder.config.hidden_size
    block = heads.blocks[0]
    with torch.no_grad():
        block.join.weight[:, width:] = 0
        states, tokens = torch.randn(2, 7, width), torch.randn(2, 7, width)
        rope = rope_of(model, states, torch.arange(7).unsqueeze(0))
        expected = decoder.norm(decoder.layers[-1](states, attention_mask=_causal(7), position_embeddings=rope))
        torch.testing.assert_close(heads(states, tokens, rope)[0], expected, atol=1e-5, rtol=1e-5)


def _causal(size: int) -> Tensor:
    return torch.full((size, size), float("-inf")).triu(1)[None, None]


def test_what_is_learnt_in_one_pass_is_what_is_drafted_with_step_by_step(
    drafting_checkpoint: Path, clips: list[Prompt]
) -> None:
    adapter, model = loaded(drafting_checkpoint)
    heads = load_heads(drafting_checkpoint / FOLDER, model).eval()
    said = [greedy(adapter, model, clips[0], 8)]
    with torch.no_grad():
        batch, states = whole(adapter, model, clips[:1], said)
        read = read_by_heads(model, batch, states)
        in_one_pass = heads(*read)
        _, tokens, _ = read
        for t in (3, states.shape[1] - 4):
            rope = rope_of(model, states, torch.arange(t + 1).unsqueeze(0))
            memory = [block.memory(states[:, : t + 1], tokens[:, 1 : t + 2], rope) for block in heads.blocks]
            state = states[:, t : t + 1]
            here = rope_of(model, state, torch.tensor([[t]]))
            for h, (block, kept) in enumerate(zip(heads.blocks, memory, strict=True), start=1):
                state = block(state, tokens[:, t + h : t + h + 1], kept, here)
                torch.testing.assert_close(state[0, 0], in_one_pass[h - 1][0, t], atol=1e-5, rtol=1e-5)


def test_losses_by_offset_are_those_of_each_token_by_itself(drafting_checkpoint: Path, clips: list[Prompt]) -> None:
    adapter, model = loaded(drafting_checkpoint)
    heads = load_heads(drafting_checkpoint / FOLDER, model).eval()
    said = [(41, 52, 63), (44, 55), (70, 71, 72, 73, 74), (80,)]
    with torch.no_grad():
        batch, states = whole(adapter, model, clips, said)
        every = [states, *heads(*read_by_heads(model, batch, states))]
        found = offset_losses(batch, every, model)
    head = model.get_output_embeddings().weight.detach().double()
    for offset, predicting in enumerate(every):
        nats, tokens, hits = 0.0, 0, 0
        for row, answer in enumerate(said):
            start = len(adapter.encode(clips[row]).token_ids) - 1
            for j in range(len(answer) - offset):
                logits = head @ predicting[row, start + j].double()
                nats += float(logits.logsumexp(0) - logits[answer[j + offset]])
                hits += int(logits.argmax()) == answer[j + offset]
                tokens += 1
        assert float(found.nats[offset]) == pytest.approx(nats, rel=1e-5)
        assert (int(found.tokens[offset]), int(found.hits[offset])) == (tokens, hits)


def test_the_weights_of_the_offsets_are_the_published_ones() -> None:
    total = 1 + 0.9 + 0.81
    assert offset_weights(3, 0.9).tolist() == pytest.approx([1 / total, 0.9 / total, 0.81 / total])
    nats, tokens = torch.tensor([8.0, 3.0, 4.0, 0.0]), torch.tensor([4, 3, 2, 0])
    guesses = (1.0 * 1.0 + 0.9 * 2.0) / total
    assert float(mtp_loss(nats, tokens, 0.9, with_backbone=False)) == pytest.approx(guesses)
    assert float(mtp_loss(nats, tokens, 0.9, with_backbone=True)) == pytest.approx(guesses + 2.0)


def test_the_joint_stage_teaches_adaptor_decoder_and_blocks_and_not_the_encoder(
    drafting_checkpoint: Path, clips: list[Prompt]
) -> None:
    adapter, model = loaded(drafting_checkpoint)
    policy = MtpPolicy(adapter, model, load_heads(drafting_checkpoint / FOLDER, model))
    batch = make_batch([adapter.encode(clip) for clip in clips], range(4), [(41, 52, 63)] * 4, 0)
    losses = policy(batch)
    mtp_loss(losses.nats, losses.tokens, 0.9, with_backbone=True).backward()
    for name, parameter in policy.named_parameters():
        learns = parameter.grad is not None and bool(parameter.grad.any())
        in_last_block = name.startswith("heads.blocks.2")
        assert learns is not adapter.is_encoder(name.removeprefix("model.")) or in_last_block, name


@pytest.mark.parametrize("drafts", [False, True], ids=["plain", "with heads"])
def test_greedy_texts_are_those_of_plain_decoding(drafting_checkpoint: Path, clips: list[Prompt], drafts: bool) -> None:
    adapter, model = loaded(drafting_checkpoint)
    heads = load_heads(drafting_checkpoint / FOLDER, model).eval() if drafts else None
    found = [Decoder(adapter, model, heads).decode(clip, LIMIT) for clip in clips]
    assert [one.tokens for one in found] == [greedy(adapter, model, clip, LIMIT) for clip in clips]
    tokens, forwards = sum(len(one.tokens) for one in found), sum(one.forwards for one in found)
    if not drafts:
        assert forwards == tokens
        return
    # Guesses hold and fail, so that both ways are walked.
    seen = added(found)
    assert forwards < tokens
    assert 0.2 < seen.rates[0] < 1
    assert seen.rates == sorted(seen.rates, reverse=True)


def added(found: list[Decoded]) -> Acceptance:
    seen = Acceptance()
    for one in found:
        seen.add(one.acceptance)
    return seen


@torch.no_grad()
def test_a_guess_leaves_the_distribution_of_a_token_as_it_is(drafting_checkpoint: Path) -> None:
    adapter, model = loaded(drafting_checkpoint)
    generator = torch.Generator().manual_seed(0)
    decoder = Decoder(adapter, model, None, temperature=1.5, generator=generator)
    state = torch.randn(2, model.get_decoder().config.hidden_size, generator=generator)
    expected = decoder._probabilities(state[0])
    likely = expected.topk(6).indices.tolist()
    draws = 20_000
    for guess in (likely[0], likely[4]):
        counts = torch.zeros_like(expected)
        for _ in range(draws):
            counts[decoder._settled(state, [guess])[0]] += 1
        for token in likely:
            p = float(expected[token])
            assert abs(float(counts[token]) / draws - p) < 4.5 * math.sqrt(p * (1 - p) / draws)


def test_a_round_counts_what_the_text_needed() -> None:
    seen = Acceptance()
    seen.count([5, 6, 7], drafted=3, ends={0})  # two of three hold, and one more token
    seen.count([5, 0, 9, 9], drafted=3, ends={0})  # all hold, but the text ends at the second
    seen.count([0], drafted=3, ends={0})  # the text ends in place of the first guess
    assert (seen.tried, seen.accepted) == ([3, 2, 1], [2, 2, 0])
    assert (seen.rounds, seen.tokens) == (3, 3 + 2 + 1)
    assert seen.rates == [2 / 3, 1.0, 0.0]
    assert seen.mean_accepted == pytest.approx(1 + 2 / 3 + 1)


def test_counts_of_several_workers_add_up() -> None:
    a, b = Acceptance([2], [1], 2, 3), Acceptance([1, 1], [1, 0], 1, 2)
    a.add(b)
    assert a == Acceptance([3, 1], [2, 0], 3, 5)


def test_heads_survive_a_round_trip_and_know_their_backbone(drafting_checkpoint: Path, tmp_path: Path) -> None:
    adapter, model = loaded(drafting_checkpoint)
    heads = load_heads(drafting_checkpoint / FOLDER, model)
    heads.save(tmp_path, model)
    again = load_heads(tmp_path / FOLDER, model)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in heads.state_dict().items())
    assert again.config.end_token_ids == list(adapter.end_token_ids)
    check_folder(drafting_checkpoint)


def test_heads_of_other_weights_are_refused(drafting_checkpoint: Path, tmp_path: Path) -> None:
    _, model = loaded(drafting_checkpoint)
    with torch.no_grad():
        model.get_input_embeddings().weight[3, 5] += 1
    with pytest.raises(RecipeError, match="were fitted to other weights than this backbone's"):
        load_heads(drafting_checkpoint / FOLDER, model)


def test_heads_of_another_size_are_refused(drafting_checkpoint: Path, tmp_path: Path) -> None:
    _, model = loaded(drafting_checkpoint)
    config = load_heads(drafting_checkpoint / FOLDER, model).config
    sizes = config.to_dict() | {"intermediate_size": 96}
    MtpHeads(type(config)(**sizes)).save(tmp_path, model)
    with pytest.raises(RecipeError, match="intermediate_size 96, the backbone's decoder has 192"):
        load_heads(tmp_path / FOLDER, model)


def test_a_checkpoint_without_heads_is_refused(tiny_checkpoint: Path) -> None:
    with pytest.raises(RecipeError, match=r"rollout\.speculative is mtp, and .* has no heads"):
        check_folder(tiny_checkpoint)
