"""LoRA on the real vLLM engine, in every layout: sent by itself where vLLM takes it, else merged into the weights."""

from pathlib import Path

import pytest
import torch

from policies.adapter import PolicyAdapter
from policies.load import load_adapter
from policies.lora import add_lora, is_lora, lora_weights, merged_weights
from policies.policy import Policy
from policies.weights import WeightUpdate, checksum
from rlhf_platform.errors import SyncError
from rlhf_platform.recipe.schema import LoraConfig
from rlhf_platform.types import Prompt
from rollout.engine import RolloutEngine, SamplingSettings
from tests.layouts import ALIKE, LAYOUTS
from tests.parity import TOLERANCE, largest_difference

LORA = LoraConfig(rank=3, alpha=7.0)
SAMPLED = SamplingSettings(samples=4, temperature=1.0, max_new_tokens=10, seed=3)


def draw_lora(policy: Policy, seed: int) -> None:
    """Random A and B, both away from 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if is_lora(name):
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))


def update_of(adapter: PolicyAdapter, policy: Policy, version: int) -> WeightUpdate:
    if adapter.vllm_serves_lora:
        tensors = {name: value.clone() for name, value in lora_weights(adapter, policy.model)}
        return WeightUpdate(version, tensors, checksum(tensors), LORA.rank)
    tensors = {adapter.vllm_name(name): value.clone() for name, value in merged_weights(policy.model)}
    return WeightUpdate(version, tensors, checksum(tensors))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in ALIKE else []) for name in LAYOUTS]
)
def test_transformers_and_vllm_agree_after_each_sync_of_lora(name: str, clips: list[Prompt], tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    layout.build(tmp_path / "start", layout.ties[-1])
    adapter = load_adapter(layout.adapter, tmp_path / "start")
    base = Policy(adapter, adapter.load_model(torch.float32), 1.0, freeze_encoder=True).eval()
    model = adapter.load_model(torch.float32)
    add_lora(adapter, model, LORA, "learner.lora", seed=0)
    policy = Policy(adapter, model, 1.0, freeze_encoder=True).eval()
    engine = RolloutEngine(
        layout.adapter, tmp_path / "start", "float32", layout.max_tokens, 32, kv_cache_gib=0.1, lora_rank=LORA.rank
    )
    assert largest_difference(adapter, base, engine.generate(clips, SAMPLED)) < TOLERANCE
    engine.load_weights(update_of(adapter, policy, 0))  # B is still 0
    assert largest_difference(adapter, base, engine.generate(clips, SAMPLED)) < TOLERANCE
    for version in (1, 2):
        before = engine.generate(clips, SAMPLED)
        draw_lora(policy, version)
        assert engine.load_weights(update_of(adapter, policy, version)) == version
        after = engine.generate(clips, SAMPLED)
        assert largest_difference(adapter, policy, after) < TOLERANCE
        assert largest_difference(adapter, policy, before) > 1e-2
        assert largest_difference(adapter, base, after) > 1e-2
    engine.close()


def test_an_engine_takes_only_the_kind_of_update_that_it_was_started_for(tmp_path: Path, clips: list[Prompt]) -> None:
    layout = LAYOUTS["codec_llama"]
    layout.build(tmp_path, True)
    adapter = load_adapter(layout.adapter, tmp_path)
    engine = RolloutEngine(layout.adapter, tmp_path, "float32", 64, 32, kv_cache_gib=0.1)
    model = adapter.load_model(torch.float32)
    add_lora(adapter, model, LORA, "learner.lora", seed=0)
    update = update_of(adapter, Policy(adapter, model, 1.0, freeze_encoder=True), 1)
    with pytest.raises(SyncError, match=r"^weights of version 1 are LoRA of rank 3 .* started for rank 0$"):
        engine.load_weights(update)
    assert engine.version == 0
    engine.close()
