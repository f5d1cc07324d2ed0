"""Sessions on the real vLLM engine: several clips in a prompt, and replies that are carried from turn to turn."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from policies.load import load_adapter
from policies.policy import Policy
from policies.weights import WeightUpdate, checksum
from rlhf_platform.data.dialogue import follow_up, session_of
from rlhf_platform.types import Prompt, StopReason
from rollout.engine import RolloutEngine, SamplingSettings
from tests.dialogues import SAID, dialogue
from tests.layouts import LAYOUTS
from tests.parity import TOLERANCE, largest_difference

SAMPLED = SamplingSettings(samples=3, temperature=0.8, max_new_tokens=10, seed=3)
WRITTEN = Prompt("written", "", "", "en", metadata={"text": "echo"})


@pytest.mark.parametrize(
    "name", ["qwen3_asr", "qwen2_audio", pytest.param("qwen2_5_omni_thinker", marks=pytest.mark.slow)]
)
def test_a_session_is_served_with_the_learners_log_probs_turn_by_turn(
    name: str, clips: list[Prompt], tmp_path: Path
) -> None:
    layout = LAYOUTS[name]
    layout.build(tmp_path, layout.ties[0])
    adapter = load_adapter(layout.adapter, tmp_path)
    policy = Policy(adapter, adapter.load_model(torch.float32), SAMPLED.temperature, freeze_encoder=True).eval()
    engine = RolloutEngine(layout.adapter, tmp_path, "float32", 256, max_sequences=32, kv_cache_gib=0.1, clips=3)

    # Three lengths of session, a clip to transcribe and a text to answer, served together.
    mixed = [dialogue(clips, 2), WRITTEN, dialogue(clips[1:], 1), clips[2], dialogue(clips[::-1], 0, persona="")]
    samples = engine.generate(mixed, SAMPLED)
    assert largest_difference(adapter, policy, samples) < TOLERANCE
    assert len({sample.tokens for sample in samples}) > len(mixed)

    scripted = [{"audio": clip.audio, "text": said} for clip, said in zip(clips[1:], SAID[1:], strict=False)]
    first = dialogue(clips, 0)
    prompt = replace(first, metadata={**first.metadata, "next": scripted})
    said = engine.generate([prompt], SAMPLED)
    for turn in (1, 2):
        later = [
            follow_up(s.prompt, s.text, s.tokens, session_of(s.prompt.audio, s.prompt.metadata).next[0]) for s in said
        ]
        for sample, after in zip(said, later, strict=True):
            before = [*adapter.encode(sample.prompt).token_ids, *sample.tokens]
            assert list(adapter.encode(after).token_ids[: len(before)]) == before
        said = engine.generate(later, replace(SAMPLED, samples=1, seed=turn))
        assert [sample.prompt.id for sample in said] == [f"d0#{turn + 1}"] * SAMPLED.samples
        assert largest_difference(adapter, policy, said) < TOLERANCE
    assert {s.stop_reason for s in said} <= {StopReason.LENGTH, StopReason.EOS}

    # New weights reach what was computed of the clips of past turns.
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    assert largest_difference(adapter, policy, said) > 1e-2
    tensors = {vllm: value.clone() for vllm, value in adapter.vllm_weights(policy.model)}
    engine.load_weights(WeightUpdate(1, tensors, checksum(tensors)))
    again = engine.generate([sample.prompt for sample in said], replace(SAMPLED, samples=1))
    assert largest_difference(adapter, policy, again) < TOLERANCE
    engine.close()
