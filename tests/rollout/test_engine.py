"""The real vLLM engine on a tiny checkpoint: log-probs, versions, sync, and the staleness that only a probe finds."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from policies.adapter import PolicyAdapter
from policies.load import load_adapter
from policies.policy import Policy
from policies.weights import WeightUpdate, checksum
from rlhf_platform.errors import SyncError
from rlhf_platform.types import Prompt, StopReason
from rollout.engine import RolloutEngine, SamplingSettings
from tests.parity import TOLERANCE, largest_difference

LAYOUT = "qwen3_asr"
SAMPLED = SamplingSettings(samples=4, temperature=1.0, max_new_tokens=12, seed=3)


def engine_for(checkpoint: Path) -> RolloutEngine:
    return RolloutEngine(LAYOUT, checkpoint, "float32", max_tokens=256, max_sequences=32, kv_cache_gib=0.1)


def policy_for(checkpoint: Path, temperature: float = 1.0) -> tuple[PolicyAdapter, Policy]:
    adapter = load_adapter(LAYOUT, checkpoint)
    return adapter, Policy(adapter, adapter.load_model(torch.float32), temperature, freeze_encoder=True).eval()


def moved(policy: Policy, version: int) -> WeightUpdate:
    """The policy's weights after every parameter has moved."""
    torch.manual_seed(version)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    tensors = {name: value.clone() for name, value in policy.adapter.vllm_weights(policy.model)}
    return WeightUpdate(version, tensors, checksum(tensors))


@pytest.fixture(scope="module")
def engine(tiny_checkpoint: Path) -> Iterator[RolloutEngine]:
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"  # as other programs on the machine may want it
    # Closed, and not left to the garbage collector: that would take vLLM's process groups from a later engine.
    engine = engine_for(tiny_checkpoint)
    yield engine
    engine.close()


def test_the_cache_is_as_large_as_the_recipe_says(engine: RolloutEngine) -> None:
    cache = engine._llm.llm_engine.vllm_config.cache_config
    assert cache.kv_cache_memory_bytes == int(0.1 * 2**30)
    # Keys and values of two layers, one head of 32 in float32.
    assert cache.num_gpu_blocks * cache.block_size * 2 * 2 * 32 * 4 == pytest.approx(0.1 * 2**30, rel=0.05)


def test_behaviour_logprobs_are_those_of_the_distribution_sampled_from(
    engine: RolloutEngine, tiny_checkpoint: Path, clips: list[Prompt]
) -> None:
    for temperature in (1.0, 0.7):
        adapter, policy = policy_for(tiny_checkpoint, temperature)
        samples = engine.generate(clips, replace(SAMPLED, temperature=temperature))
        assert largest_difference(adapter, policy, samples) < TOLERANCE


def test_logprobs_of_a_short_clip_do_not_depend_on_the_clips_it_is_served_with(
    engine: RolloutEngine, tiny_checkpoint: Path, clips: list[Prompt]
) -> None:
    adapter, policy = policy_for(tiny_checkpoint)
    for served in ([clips[0]], [clips[1]], clips[:2], clips):
        engine._llm.reset_mm_cache()
        engine._llm.llm_engine.engine_core.reset_encoder_cache()
        assert largest_difference(adapter, policy, engine.generate(served, SAMPLED)) < TOLERANCE


def test_samples_hold_only_tokens_that_the_branch_may_write_and_say_why_they_ended(
    engine: RolloutEngine, tiny_checkpoint: Path, clips: list[Prompt]
) -> None:
    adapter = load_adapter(LAYOUT, tiny_checkpoint)
    samples = engine.generate(clips, replace(SAMPLED, samples=16, max_new_tokens=3))
    allowed = set(adapter.completion_token_ids)
    assert {s.prompt.id for s in samples} == {c.id for c in clips}
    assert len(samples) == 16 * len(clips)
    for sample in samples:
        assert set(sample.tokens) <= allowed
        assert len(sample.tokens) == len(sample.logprobs) <= 3
        ended = sample.tokens[-1] in adapter.end_token_ids
        assert sample.stop_reason is (StopReason.EOS if ended else StopReason.LENGTH)


def test_the_same_seed_gives_the_same_samples(engine: RolloutEngine, clips: list[Prompt]) -> None:
    first, again = (engine.generate(clips, SAMPLED) for _ in range(2))
    other = engine.generate(clips, replace(SAMPLED, seed=4))
    assert [s.tokens for s in first] == [s.tokens for s in again]
    assert [s.tokens for s in first] != [s.tokens for s in other]


def test_after_each_sync_the_engine_serves_the_new_weights_to_clips_it_has_seen(
    tiny_checkpoint: Path, clips: list[Prompt]
) -> None:
    engine = engine_for(tiny_checkpoint)
    adapter, policy = policy_for(tiny_checkpoint)
    before = engine.generate(clips, SAMPLED)
    assert {s.weight_version for s in before} == {0}
    for version in (1, 2):
        stale = largest_difference(adapter, policy, before)
        assert engine.load_weights(moved(policy, version)) == version
        after = engine.generate(clips, SAMPLED)
        assert {s.weight_version for s in after} == {version}
        assert largest_difference(adapter, policy, after) < TOLERANCE
        assert largest_difference(adapter, policy, before) > 1e-2 > stale
        before = after
    engine.close()


def test_weights_altered_on_their_way_are_refused(engine: RolloutEngine, tiny_checkpoint: Path) -> None:
    _, policy = policy_for(tiny_checkpoint)
    tensors = {name: value.clone() for name, value in policy.adapter.vllm_weights(policy.model)}
    update = WeightUpdate(7, tensors, checksum(tensors))
    next(iter(tensors.values())).view(-1)[0] += 1
    with pytest.raises(SyncError, match="version 7 arrived with checksum"):
        engine.load_weights(update)
    assert engine.version == 0


def test_a_tied_head_keeps_its_old_weights_without_an_error_and_the_probe_sees_it(
    tiny_checkpoint: Path, clips: list[Prompt], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM 0.32 packs a tied head once; an update of the embedding alone is taken and half ignored, unless mended."""
    monkeypatch.setattr("rollout.engine._repack_tied_head", lambda model: None)
    adapter = load_adapter(LAYOUT, tiny_checkpoint)
    model = adapter.load_model(torch.float32)
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = True
    model.lm_head.weight = model.get_input_embeddings().weight
    model.tie_weights()
    adapter.save(model, tmp_path / "tied")
    engine = engine_for(tmp_path / "tied")
    adapter, policy = policy_for(tmp_path / "tied")
    assert largest_difference(adapter, policy, engine.generate(clips, SAMPLED)) < TOLERANCE
    assert engine.load_weights(moved(policy, 1)) == 1  # accepted, version echoed, checksum right
    assert largest_difference(adapter, policy, engine.generate(clips, SAMPLED)) > 1e-2
    engine.close()
