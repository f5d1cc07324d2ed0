"""Law 1: trainer and rollout get bit-identical features for one clip; vLLM's own processor, without an engine."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")

from vllm.config import ModelConfig
from vllm.config.speech_to_text import SpeechToTextParams
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.processing import ProcessorInputs
from vllm.multimodal.processing.context import TimingContext

from policies.qwen3_asr import Qwen3ASRAdapter
from policies.vllm_plugin import register
from policies.vllm_qwen3_asr import UntiedQwen3ASR
from rlhf_platform.types import Prompt


@pytest.fixture(scope="module")
def config(tiny_checkpoint: Path) -> ModelConfig:
    register()
    register()  # more than once is allowed
    return ModelConfig(model=str(tiny_checkpoint), dtype="float32", max_model_len=128, limit_mm_per_prompt={"audio": 1})


def processed(config: ModelConfig, prompt: dict[str, Any]) -> tuple[list[int], dict[str, Any]]:
    """Token ids and features, as vLLM's processor hands them to its model."""
    processor = MULTIMODAL_REGISTRY.create_processor(config)
    items = processor.info.parse_mm_data(prompt["multi_modal_data"])
    out = processor.apply(ProcessorInputs(prompt["prompt_token_ids"], items), TimingContext(enabled=False))
    return list(out["prompt_token_ids"]), out["mm_kwargs"].get_data()


@pytest.mark.parametrize("index", range(4))
def test_rollout_and_learner_get_the_same_bits(
    adapter: Qwen3ASRAdapter, config: ModelConfig, clips: list[Prompt], index: int
) -> None:
    encoded = adapter.encode(clips[index])
    tokens, data = processed(config, adapter.vllm_prompt(clips[index]))
    (heard,) = encoded.clips
    frames = int(heard.mask.sum())
    assert tokens == list(encoded.token_ids)
    assert data["audio_feature_lengths"].tolist() == [frames]
    assert data["input_audio_features"].dtype == heard.features.dtype
    assert torch.equal(data["input_audio_features"], heard.features[:, :frames])


@pytest.mark.parametrize("language", ["en", "fr", "ja"])
def test_the_prompt_is_the_one_vllm_writes_for_a_transcription_request(
    adapter: Qwen3ASRAdapter, config: ModelConfig, clips: list[Prompt], language: str
) -> None:
    prompt = Prompt("p", clips[1].audio, "", language)
    ours = adapter.vllm_prompt(prompt)
    request = SpeechToTextParams(
        audio=ours["multi_modal_data"]["audio"][0], stt_config=None, model_config=config, language=language
    )
    theirs = UntiedQwen3ASR.get_generation_prompt(request)
    assert ours["prompt_token_ids"] == theirs["prompt_token_ids"]
