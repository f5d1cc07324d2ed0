"""vLLM samples speech under the token rule, and reports the log-probs that the learner finds (law 6)."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from policies.load import load_adapter
from policies.policy import Policy
from rlhf_platform.types import Sample, StopReason
from rollout.engine import RolloutEngine, SamplingSettings
from tests.parity import TOLERANCE, largest_difference
from tests.speaking import PROMPTS, write_speaking_checkpoint

SETTINGS = SamplingSettings(samples=16, temperature=0.8, max_new_tokens=200, seed=1)


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("speaking") / "checkpoint"
    write_speaking_checkpoint(tiny_checkpoint, path)
    return path


@pytest.fixture(scope="module")
def samples(checkpoint: Path) -> Iterator[list[Sample]]:
    engine = RolloutEngine("qwen3_asr", checkpoint, "float32", max_tokens=256, max_sequences=8, kv_cache_gib=0.1)
    yield engine.generate(PROMPTS, SETTINGS)
    engine.close()


def test_each_token_is_of_the_codebook_of_its_place_and_ends_stand_between_frames(
    samples: list[Sample], checkpoint: Path
) -> None:
    adapter = load_adapter("qwen3_asr", checkpoint)
    codebooks = adapter.rule.codebooks
    assert [len(codebook) for codebook in codebooks] == [8, 4, 4]
    for sample in samples:
        body = sample.tokens[:-1] if sample.stop_reason is StopReason.EOS else sample.tokens
        assert all(token in codebooks[step % 3] for step, token in enumerate(body))
        assert sample.stop_reason is StopReason.LENGTH or len(body) % 3 == 0


def test_speech_is_no_shorter_and_no_longer_than_its_text_allows(samples: list[Sample], checkpoint: Path) -> None:
    adapter = load_adapter("qwen3_asr", checkpoint)
    for prompt in PROMPTS:
        # 20 frames a second of 3 tokens: 0.02 to 0.1 s for each character; an end token on top.
        least, most = adapter.band(prompt)
        assert least == int(0.02 * len(prompt.reference) * 20) * 3
        lengths = [len(s.tokens) for s in samples if s.prompt is prompt]
        assert least < min(lengths)
        assert max(lengths) <= most == (int(0.1 * len(prompt.reference) * 20 + 1e-9) + 1) * 3 + 1
    assert {s.stop_reason for s in samples} == {StopReason.EOS, StopReason.LENGTH}


def test_behaviour_logprobs_are_the_learners(samples: list[Sample], checkpoint: Path) -> None:
    adapter = load_adapter("qwen3_asr", checkpoint)
    policy = Policy(adapter, adapter.load_model(torch.float32), 0.8, freeze_encoder=True).eval()
    assert largest_difference(adapter, policy, samples) < TOLERANCE
