"""Law 1 for every layout that hears: the learner's tokens and features are, bit by bit, those of vLLM's processor."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")

from vllm.config import ModelConfig
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.processing import ProcessorInputs
from vllm.multimodal.processing.context import TimingContext

from policies.load import load_adapter
from policies.vllm_plugin import register
from rlhf_platform.types import Prompt
from tests.layouts import HEARING, LAYOUTS


def processed(config: ModelConfig, prompt: dict[str, Any]) -> tuple[list[int], dict[str, Any]]:
    """Token ids of the decoder and features, as vLLM's processor hands them to its model."""
    processor = MULTIMODAL_REGISTRY.create_processor(config)
    items = processor.info.parse_mm_data(prompt.get("encoder_prompt", prompt)["multi_modal_data"])
    tokens = prompt.get("decoder_prompt", prompt)["prompt_token_ids"]
    out = processor.apply(ProcessorInputs(tokens, items), TimingContext(enabled=False))
    return list(out["prompt_token_ids"]), out["mm_kwargs"].get_data()


@pytest.mark.parametrize("name", HEARING)
def test_rollout_and_learner_get_the_same_bits(name: str, clips: list[Prompt], tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    layout.build(tmp_path, layout.ties[0])
    adapter = load_adapter(layout.adapter, tmp_path)
    register()
    limit = {"audio": 1}
    config = ModelConfig(
        model=str(tmp_path), dtype="float32", max_model_len=layout.max_tokens, limit_mm_per_prompt=limit
    )
    for clip in clips:
        encoded = adapter.encode(clip)
        (heard,) = encoded.clips
        assert heard.features is not None
        assert heard.mask is not None
        tokens, data = processed(config, adapter.vllm_prompt(clip))
        assert tokens == list(encoded.token_ids)
        features = data["input_features"][0] if "input_features" in data else data["input_audio_features"]
        assert features.dtype == heard.features.dtype
        # vLLM keeps the real frames only, where the encoder is not of one window.
        frames = int(heard.mask.sum())
        assert features.shape[1] in (frames, heard.features.shape[1])
        assert torch.equal(features, heard.features[:, : features.shape[1]])
        if "feature_attention_mask" in data:
            assert int(data["feature_attention_mask"].sum()) == frames
