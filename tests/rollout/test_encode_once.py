"""Samples of one clip pay for one pass through the encoder, and nothing outlives a weight update."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from policies.load import load_adapter
from policies.weights import WeightUpdate, checksum
from rlhf_platform.types import Prompt
from rollout.engine import RolloutEngine, SamplingSettings
from tests.layouts import build_whisper


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whisper") / "checkpoint"
    build_whisper(path, tied=True)
    return path


@pytest.fixture(scope="module")
def engine(checkpoint: Path) -> Iterator[RolloutEngine]:
    engine = RolloutEngine("whisper", checkpoint, "float32", max_tokens=64, max_sequences=32, kv_cache_gib=0.1)
    yield engine
    engine.close()


def encoded_clips(engine: RolloutEngine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the number of clips of each pass through the encoder."""
    passes: list[int] = []
    (model,) = engine._llm.apply_model(lambda model: model)
    encode = model.model.get_encoder_outputs

    def counted(features: torch.Tensor) -> Any:
        passes.append(len(features))
        return encode(features)

    monkeypatch.setattr(model.model, "get_encoder_outputs", counted)
    return passes


def test_each_clip_is_encoded_once_however_many_samples_it_has(
    engine: RolloutEngine, clips: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.forget()
    passes = encoded_clips(engine, monkeypatch)
    engine.generate(clips, SamplingSettings(8, 1.0, 6, seed=1))
    assert sum(passes) == len(clips)
    engine.generate(clips, SamplingSettings(8, 1.0, 6, seed=2))
    assert sum(passes) == len(clips)


def test_after_an_update_clips_are_encoded_anew(
    engine: RolloutEngine, checkpoint: Path, clips: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = load_adapter("whisper", checkpoint)
    tensors = dict(adapter.vllm_weights(adapter.load_model(torch.float32)))
    engine.generate(clips, SamplingSettings(2, 1.0, 6, seed=1))
    engine.load_weights(WeightUpdate(1, tensors, checksum(tensors)))
    passes = encoded_clips(engine, monkeypatch)
    engine.generate(clips, SamplingSettings(2, 1.0, 6, seed=1))
    assert sum(passes) == len(clips)


def test_shared_encoder_outputs_give_the_samples_that_separate_ones_give(
    engine: RolloutEngine, clips: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm.model_executor.models.whisper import WhisperForConditionalGeneration

    from policies.vllm_whisper import EncodeOnceWhisper

    settings = SamplingSettings(4, 1.0, 8, seed=5)
    shared = engine.generate(clips, settings)
    engine.forget()
    monkeypatch.setattr(EncodeOnceWhisper, "embed_multimodal", WhisperForConditionalGeneration.embed_multimodal)
    separate = engine.generate(clips, settings)
    assert [s.tokens for s in shared] == [s.tokens for s in separate]
    for ours, theirs in zip(shared, separate, strict=True):
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-5)
