"""A frozen encoder sees each clip once; what is kept is what the policy would compute."""

from pathlib import Path

import pytest
import torch

from policies.load import load_adapter
from policies.policy import Policy
from rlhf_platform.learner import clips as module
from rlhf_platform.learner.clips import Clips
from rlhf_platform.types import Prompt, Sample, StopReason


def samples_of(prompts: list[Prompt], tokens: tuple[int, ...]) -> list[Sample]:
    return [Sample(p, tokens, (-0.5,) * len(tokens), "", StopReason.EOS, 0) for p in prompts for _ in range(2)]


@pytest.fixture
def policy(tiny_checkpoint: Path) -> Policy:
    adapter = load_adapter("qwen3_asr", tiny_checkpoint)
    return Policy(adapter, adapter.load_model(torch.float32), 1.0, freeze_encoder=True).eval()


def test_kept_encoder_output_gives_the_logprobs_that_features_give(policy: Policy, clips: list[Prompt]) -> None:
    samples = samples_of(clips, policy.adapter.completion_token_ids[:4])
    once, again = (Clips(policy.adapter, policy, encode_once) for encode_once in (True, False))
    batch, audio = once.batch(samples)
    with_features, none = again.batch(samples)
    assert audio is not None
    assert len(audio) == len(clips)
    assert batch.features is None
    assert none is None
    with torch.no_grad():
        torch.testing.assert_close(policy(batch, audio)[0], policy(with_features)[0], rtol=0, atol=1e-5)


def test_a_clip_is_encoded_once_and_the_least_used_is_forgotten(
    policy: Policy, clips: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    encode = policy.encode
    monkeypatch.setattr(policy, "encode", lambda batch: seen.append(1) or encode(batch))
    monkeypatch.setattr(module, "KEPT_CLIPS", 2)
    kept = Clips(policy.adapter, policy, encode_once=True)
    tokens = policy.adapter.completion_token_ids[:2]
    for chosen, encoded in (([0, 1], 2), ([1, 0], 2), ([0, 2], 3), ([0], 3), ([1], 4)):
        kept.batch(samples_of([clips[i] for i in chosen], tokens))
        assert len(seen) == encoded
