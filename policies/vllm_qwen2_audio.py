"""vLLM's Qwen2-Audio for windows shorter than 30 s."""

from typing import Any

from vllm.model_executor.models.qwen2_audio import Qwen2AudioFeatureInputs, Qwen2AudioForConditionalGeneration


class AnyWindowQwen2Audio(Qwen2AudioForConditionalGeneration):
    """vLLM 0.32 refuses features of another length than 3,000 frames; the encoder itself checks against its config."""

    def _parse_and_validate_audio_input(self, **kwargs: Any) -> Any:
        if kwargs.get("input_features") is None:
            return super()._parse_and_validate_audio_input(**kwargs)
        return Qwen2AudioFeatureInputs(
            type="audio_features",
            input_features=kwargs["input_features"],
            feature_attention_mask=kwargs["feature_attention_mask"],
            validate=False,
        )
