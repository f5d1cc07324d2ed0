"""Every layout on the real vLLM engine: Transformers' log-probs are vLLM's, before and after a sync and from disk."""

from pathlib import Path

import pytest
import torch

from policies.batch import make_batch
from policies.load import load_adapter
from policies.policy import Policy
from policies.weights import WeightUpdate, checksum
from rlhf_platform.types import Prompt
from rollout.engine import RolloutEngine, SamplingSettings
from tests.layouts import ALIKE, CASES, LAYOUTS, Layout
from tests.parity import TOLERANCE, largest_difference

SAMPLED = SamplingSettings(samples=4, temperature=1.0, max_new_tokens=10, seed=3)


def engine_for(layout: Layout, checkpoint: Path) -> RolloutEngine:
    return RolloutEngine(layout.adapter, checkpoint, "float32", layout.max_tokens, max_sequences=32, kv_cache_gib=0.1)


@pytest.mark.parametrize(
    ("name", "tied"), [pytest.param(*case, marks=[pytest.mark.slow] if case[0] in ALIKE else []) for case in CASES]
)
def test_transformers_and_vllm_agree_from_disk_after_a_sync_and_after_a_save(
    name: str, tied: bool, clips: list[Prompt], tmp_path: Path
) -> None:
    layout = LAYOUTS[name]
    layout.build(tmp_path / "start", tied)
    adapter = load_adapter(layout.adapter, tmp_path / "start")
    policy = Policy(adapter, adapter.load_model(torch.float32), 1.0, freeze_encoder=True).eval()
    engine = engine_for(layout, tmp_path / "start")
    before = engine.generate(clips, SAMPLED)
    assert len({s.tokens for s in before}) > len(clips)
    assert largest_difference(adapter, policy, before) < TOLERANCE

    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    assert largest_difference(adapter, policy, before) > 1e-2
    tensors = {vllm: value.clone() for vllm, value in adapter.vllm_weights(policy.model)}
    engine.load_weights(WeightUpdate(1, tensors, checksum(tensors)))
    after = engine.generate(clips, SAMPLED)
    assert largest_difference(adapter, policy, after) < TOLERANCE
    engine.close()

    adapter.save(policy.model, tmp_path / "saved")
    reloaded = load_adapter(layout.adapter, tmp_path / "saved")
    again = Policy(reloaded, reloaded.load_model(torch.float32), 1.0, freeze_encoder=True).eval()
    assert largest_difference(reloaded, again, after) < TOLERANCE
    engine = engine_for(layout, tmp_path / "saved")
    assert largest_difference(reloaded, again, engine.generate(clips, SAMPLED)) < TOLERANCE
    engine.close()


@pytest.mark.parametrize("name", LAYOUTS)
def test_completions_of_one_clip_score_the_same_together_and_alone(
    name: str, clips: list[Prompt], tmp_path: Path
) -> None:
    layout = LAYOUTS[name]
    layout.build(tmp_path / "start", layout.ties[0])
    adapter = load_adapter(layout.adapter, tmp_path / "start")
    policy = Policy(adapter, adapter.load_model(torch.float32), 1.0, freeze_encoder=True).eval()
    allowed = adapter.completion_token_ids
    rows = [(0, allowed[:5]), (1, allowed[3:4]), (0, allowed[-7:]), (2, allowed[2:9]), (1, allowed[-3:])]
    encoded = [adapter.encode(clip) for clip in clips[:3]]
    pad = adapter.tokenizer.pad_token_id
    batch = make_batch(encoded, [clip for clip, _ in rows], [tokens for _, tokens in rows], pad)
    with torch.no_grad():
        together = policy(batch, policy.encode(batch))[0]
        for row, (clip, tokens) in enumerate(rows):
            alone = policy(make_batch([encoded[clip]], [0], [tokens], pad))[0][0]
            assert torch.allclose(together[row, : len(tokens)], alone, atol=1e-5)
