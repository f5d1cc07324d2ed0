"""The critic on the tiny backbone: what it says of padding, where it starts, what learns."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from policies.batch import PolicyBatch, make_batch
from policies.critic import Critic
from policies.load import load_adapter
from policies.lora import add_lora, is_lora
from policies.qwen3_asr import Qwen3ASRAdapter
from rlhf_platform.recipe.schema import LoraConfig
from rlhf_platform.types import Prompt
from tests.layouts import LAYOUTS

LENGTHS = (3, 7, 1, 5)


def batch_of(adapter: Qwen3ASRAdapter, clips: list[Prompt], rows: list[int]) -> PolicyBatch:
    """Row i answers clip `rows[i]` with `LENGTHS[rows[i]]` tokens."""
    completions = [adapter.completion_token_ids[10 * row : 10 * row + LENGTHS[row]] for row in rows]
    encoded = [adapter.encode(clips[row]) for row in rows]
    return make_batch(encoded, range(len(rows)), completions, adapter.tokenizer.pad_token_id)


def critic_of(adapter: Qwen3ASRAdapter, trunk: bool, freeze_encoder: bool = True) -> Critic:
    torch.manual_seed(0)
    return Critic(adapter, adapter.load_model(torch.float32), freeze_encoder, trunk).eval()


def taught(critic: Critic) -> Critic:
    """The critic with a head that no longer is at its start."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in critic.head.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return critic


@pytest.mark.parametrize("trunk", [True, False])
def test_values_start_at_zero(adapter: Qwen3ASRAdapter, clips: list[Prompt], trunk: bool) -> None:
    values = critic_of(adapter, trunk)(batch_of(adapter, clips, [0, 1, 2, 3]))
    assert values.shape == (4, 7)
    assert values.dtype == torch.float32
    assert (values == 0).all()


@pytest.mark.parametrize("trunk", [True, False])
@torch.no_grad()
def test_a_value_is_the_heads_of_the_state_before_its_token_whatever_stands_beside_the_row(
    adapter: Qwen3ASRAdapter, clips: list[Prompt], trunk: bool
) -> None:
    critic = taught(critic_of(adapter, trunk))
    batch = batch_of(adapter, clips, [0, 1, 2, 3])
    together = critic(batch)
    assert torch.equal(critic(batch, critic.encode(batch)), together)
    for row in range(4):
        encoded, tokens = adapter.encode(clips[row]), batch.completion_ids[row, : LENGTHS[row]].tolist()
        states = critic.model.model(
            input_ids=torch.tensor([[*encoded.token_ids, *tokens]]),
            input_features=encoded.clips[0].features[None],
            input_features_mask=encoded.clips[0].mask[None],
        ).last_hidden_state[0, len(encoded.token_ids) - 1 : -1]
        torch.testing.assert_close(together[row, : len(tokens)], critic.head(states)[:, 0], rtol=0, atol=1e-5)
        assert (together[row, len(tokens) :] == 0).all()
    assert together[together != 0].std() > 1e-3


def learnt(critic: nn.Module) -> set[str]:
    return {name for name, p in critic.named_parameters() if p.grad is not None and (p.grad != 0).any()}


def test_on_a_frozen_trunk_the_head_alone_learns(adapter: Qwen3ASRAdapter, clips: list[Prompt]) -> None:
    critic = taught(critic_of(adapter, trunk=True, freeze_encoder=False))
    critic(batch_of(adapter, clips, [0, 1])).square().sum().backward()
    assert learnt(critic) == {"head.0.weight", "head.0.bias", "head.2.weight", "head.2.bias"}
    assert {name for name, p in critic.named_parameters() if p.requires_grad} == learnt(critic)


def test_a_trunk_keeps_nothing_of_itself_for_backward(adapter: Qwen3ASRAdapter, clips: list[Prompt]) -> None:
    critic = taught(critic_of(adapter, trunk=True))
    kept: list[torch.Size] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        critic(batch_of(adapter, clips, [0, 1]))
    tokens = sum(LENGTHS[:2])
    assert {shape[0] for shape in kept if len(shape) == 2} <= {tokens, 64, 1}


@pytest.mark.parametrize("freeze_encoder", [True, False])
def test_on_its_own_copy_all_but_output_head_and_frozen_encoder_learn(
    adapter: Qwen3ASRAdapter, clips: list[Prompt], freeze_encoder: bool
) -> None:
    critic = taught(critic_of(adapter, trunk=False, freeze_encoder=freeze_encoder))
    critic(batch_of(adapter, clips, [0, 1, 2, 3])).square().sum().backward()
    for name, parameter in critic.named_parameters():
        inner = name.removeprefix("model.")
        frozen = inner == "lm_head.weight" or (freeze_encoder and adapter.is_encoder(inner))
        assert parameter.requires_grad != frozen, name
        assert (name in learnt(critic)) != frozen or name.endswith("k_proj.bias"), name


def test_the_first_step_moves_the_head_off_zero(adapter: Qwen3ASRAdapter, clips: list[Prompt]) -> None:
    for trunk, names in ((True, {"head.2.weight", "head.2.bias"}), (False, {"head.weight", "head.bias"})):
        critic = critic_of(adapter, trunk)
        (critic(batch_of(adapter, clips, [0, 1])) - 1).square().sum().backward()
        assert learnt(critic) == names


def test_a_tied_output_head_learns_as_the_embedding_that_it_is(clips: list[Prompt], tmp_path: Path) -> None:
    LAYOUTS["qwen3_asr"].build(tmp_path, True)
    adapter = load_adapter("qwen3_asr", tmp_path)
    critic = taught(Critic(adapter, adapter.load_model(torch.float32), True, trunk=False).eval())
    critic(batch_of(adapter, clips, [0, 1])).square().sum().backward()  # type: ignore[arg-type]
    assert "model.model.language_model.embed_tokens.weight" in learnt(critic)


def test_with_lora_the_model_learns_that_alone(adapter: Qwen3ASRAdapter, clips: list[Prompt]) -> None:
    model = adapter.load_model(torch.float32)
    add_lora(adapter, model, LoraConfig(rank=2), "learner.lora", seed=0)
    critic = Critic(adapter, model, True, trunk=False).eval()
    assert all(p.requires_grad == (is_lora(n) or n.startswith("head.")) for n, p in critic.named_parameters())


@torch.no_grad()
def test_in_bfloat16_the_head_has_the_models_type_and_values_are_float32(
    adapter: Qwen3ASRAdapter, clips: list[Prompt]
) -> None:
    torch.manual_seed(0)
    critic = Critic(adapter, adapter.load_model(torch.bfloat16), True, trunk=True).eval()
    values = taught(critic)(batch_of(adapter, clips, [0, 1]))
    assert values.dtype == torch.float32
    expected = taught(critic_of(adapter, trunk=True))(batch_of(adapter, clips, [0, 1]))
    assert (values - expected).abs().mean() < 0.1 * expected.abs().mean()


@torch.no_grad()
def test_a_prompt_without_audio_has_values_too(adapter: Qwen3ASRAdapter, clips: list[Prompt]) -> None:
    critic = taught(critic_of(adapter, trunk=False))
    written = replace(clips[1], audio="", metadata={"text": "alpha"})
    mixed = critic(batch_of(adapter, [clips[0], written, *clips[2:]], [0, 1, 3]))
    alone = critic(batch_of(adapter, [clips[0], written], [1]))
    torch.testing.assert_close(mixed[1], alone[0], rtol=0, atol=1e-5)
