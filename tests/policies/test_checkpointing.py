"""Activation checkpointing: the same values and gradients in every layout, and less kept for backward."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only
from transformers.modeling_layers import GradientCheckpointingLayer

from policies.batch import PolicyBatch, make_batch
from policies.critic import Critic
from policies.load import load_adapter
from policies.policy import Policy
from rlhf_platform.types import Prompt
from tests.layouts import LAYOUTS


def policy_of(layout: str, path: Path) -> Policy:
    """All of it learnt, and dropout in its configuration, which evaluation mode turns off."""
    if not (path / "config.json").exists():
        LAYOUTS[layout].build(path, LAYOUTS[layout].ties[0])
    adapter = load_adapter(LAYOUTS[layout].adapter, path)
    policy = Policy(adapter, adapter.load_model(torch.float32), 0.8, freeze_encoder=False).eval()
    for module in policy.modules():
        for name in ("dropout", "activation_dropout", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.5)
    return policy


def batch_of(policy: Policy, clips: list[Prompt]) -> PolicyBatch:
    adapter = policy.adapter
    encoded = [adapter.encode(clip) for clip in clips]
    completions = [adapter.completion_token_ids[3 * i : 5 * i + 4] for i in range(4)]
    return make_batch(encoded, [0, 1, 0, 3], completions, adapter.tokenizer.pad_token_id)


def learnt(policy: Policy, batch: PolicyBatch) -> tuple[Tensor, dict[str, Tensor], int]:
    """Log-probs, gradients, and the bytes that forward kept for backward, parameters aside."""
    known = {p.untyped_storage().data_ptr() for p in policy.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in known:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    # What enters a layer that is computed anew is kept for it, past the hooks of autograd.
    hooks = [
        layer.register_forward_pre_hook(lambda _, *given: tree_map_only(Tensor, keep, given) and None, with_kwargs=True)
        for layer in policy.modules()
        if isinstance(layer, GradientCheckpointingLayer)
    ]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logprobs, _ = policy(batch)
    for hook in hooks:
        hook.remove()
    size = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    (logprobs * torch.linspace(-1, 1, logprobs.shape[1])).mean().backward()
    return logprobs.detach(), {n: p.grad for n, p in policy.named_parameters() if p.grad is not None}, size


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_are_the_same_and_less_is_kept(layout: str, clips: list[Prompt], tmp_path: Path) -> None:
    plain, spared = policy_of(layout, tmp_path), policy_of(layout, tmp_path)
    spared.checkpoint_activations()
    batch = batch_of(plain, clips)
    values, gradients, size = learnt(plain, batch)
    again, anew, smaller = learnt(spared, batch)
    torch.testing.assert_close(again, values, rtol=0, atol=1e-6)
    assert anew.keys() == gradients.keys()
    assert max(float(gradient.abs().max()) for gradient in gradients.values()) > 1e-3
    for name, expected in gradients.items():
        torch.testing.assert_close(anew[name], expected, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
    assert smaller < 0.7 * size
    assert not any(module.training for module in spared.modules())


def test_asked_twice_it_computes_a_layer_anew_once(clips: list[Prompt], tmp_path: Path) -> None:
    policy = policy_of("codec_llama", tmp_path)
    policy.checkpoint_activations()
    policy.checkpoint_activations()
    calls: list[int] = []
    policy.model.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    learnt(policy, batch_of(policy, clips))
    assert len(calls) == 2


def test_a_critic_has_the_same_gradients_too(clips: list[Prompt], tmp_path: Path) -> None:
    found = []
    for spare in (False, True):
        policy = policy_of("qwen3_asr", tmp_path)
        critic = Critic(policy.adapter, policy.model, True, trunk=False).eval()
        torch.nn.init.ones_(critic.head.weight)
        if spare:
            critic.checkpoint_activations()
        critic(batch_of(policy, clips)).square().mean().backward()
        found.append({n: p.grad for n, p in critic.named_parameters() if p.grad is not None})
    for name, expected in found[0].items():
        torch.testing.assert_close(found[1][name], expected, rtol=1e-5, atol=1e-6)
