"""The Qwen2-Audio layout: Whisper's encoder with pooled positions, a linear adaptor, Qwen2 decoder.

One code for the small backbone and for Qwen2-Audio-7B(-Instruct).
"""

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
)

from policies.chat import INSTRUCTION, POOLED_RATE, PROMPT_TOKENS, ChatAdapter, decoder_layers, pooled_positions
from policies.dimensions import Dimensions
from policies.window import (
    check_window,
    covered_seconds,
    cut_positions,
    freeze_positions,
    positions_for,
    whisper_encoder,
)

_HEAD = "language_model.lm_head.weight"


class Qwen2AudioAdapter(ChatAdapter):
    """Prompt: the turns that the published chat template writes for one clip and one instruction."""

    model_types = ("qwen2_audio",)
    vllm_architecture = "Qwen2AudioForConditionalGeneration"
    system = "You are a helpful assistant."
    user = f"Audio 1: {{audio}}\n{INSTRUCTION}"
    heard = "Audio {number}: {audio}\n"

    def __init__(self, path: Path | str) -> None:
        self._take(Qwen2AudioProcessor.from_pretrained(path), str(path))
        self.config = Qwen2AudioConfig.from_pretrained(path)
        check_window(self.path, self.config.audio_config.max_source_positions, self.processor.feature_extractor)

    def load_model(self, dtype: torch.dtype) -> PreTrainedModel:
        model = Qwen2AudioForConditionalGeneration.from_pretrained(self.path, dtype=dtype, attn_implementation="sdpa")
        return self._tied(model, self.config)

    @classmethod
    def empty_model(cls, config: PreTrainedConfig) -> PreTrainedModel:
        return cls._tied(Qwen2AudioForConditionalGeneration(config), config)

    @staticmethod
    def _tied(model: PreTrainedModel, config: PreTrainedConfig) -> PreTrainedModel:
        freeze_positions(model.model.audio_tower)
        if config.text_config.tie_word_embeddings:
            # vLLM ties the head of such a checkpoint, Transformers 5.19 does not in this layout.
            model.lm_head.weight = model.get_input_embeddings().weight
        return model

    @classmethod
    def dimensions(cls, config: PreTrainedConfig) -> Dimensions:
        audio, text = config.audio_config, config.text_config
        encoder = whisper_encoder(audio, POOLED_RATE, audio.d_model, padded=True)
        return Dimensions(decoder_layers(text), text.vocab_size, PROMPT_TOKENS, encoder)

    @classmethod
    def shortened(cls, config: PreTrainedConfig, seconds: float) -> PreTrainedConfig:
        config = deepcopy(config)
        audio = config.audio_config
        audio.max_source_positions = min(audio.max_source_positions, positions_for(seconds))
        return config

    def save(self, model: PreTrainedModel, path: Path) -> None:
        """Under the published names: Transformers' own reversal of its name map doubles a part (5.19), which it reads
        and vLLM does not. A tied head is written too, for a reader that does not tie."""
        state = {published_name(name): tensor for name, tensor in model.state_dict().items()}
        if self.config.text_config.tie_word_embeddings:
            state[_HEAD] = state[_HEAD].clone()
        model.save_pretrained(path, state_dict=state, save_original_format=False)
        self.processor.save_pretrained(path)

    def window(self) -> float:
        return covered_seconds(self.config.audio_config.max_source_positions, self.processor.feature_extractor)

    def cut_window(self, seconds: float, path: Path) -> None:
        model = self.load_model(torch.float32)
        cut_positions(model.model.audio_tower, self.processor.feature_extractor, seconds)
        self.save(model, path)

    def audio_states(self, model: PreTrainedModel, features: Tensor, mask: Tensor) -> list[Tensor]:
        frames = mask.sum(-1)
        # Positions of a clip look at each other and at none of the padding.
        positions = torch.arange((features.shape[-1] - 1) // 2 + 1, device=features.device)
        real = positions < ((frames - 1) // 2 + 1).unsqueeze(1)
        states = model.model.audio_tower(features, attention_mask=real[:, None, None, :]).last_hidden_state
        return [clip[: int(n)] for clip, n in zip(states, pooled_positions(frames), strict=True)]

    def _adapted(self, model: PreTrainedModel, states: Tensor) -> Tensor:
        return model.model.multi_modal_projector(states)

    def _decoder(self, model: PreTrainedModel) -> Any:
        return model.model.language_model

    @classmethod
    def is_encoder(cls, parameter: str) -> bool:
        return parameter.startswith("model.audio_tower.")

    @classmethod
    def is_adaptor(cls, parameter: str) -> bool:
        return parameter.startswith("model.multi_modal_projector.")

    def vllm_name(self, parameter: str) -> str:
        return published_name(parameter)


def published_name(parameter: str) -> str:
    """The name of a Transformers parameter in the checkpoints that Qwen published, which vLLM reads as it is."""
    if parameter == "lm_head.weight":
        return _HEAD
    return parameter.removeprefix("model.").replace("language_model.", "language_model.model.", 1)
