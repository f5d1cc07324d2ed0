"""The thinker of Qwen2.5-Omni, which hears and writes: chunked Whisper encoder, Qwen2 decoder.

Audio and text only. The vision tower is neither loaded nor trained, a saved checkpoint has it as it was. The talker,
which speaks, is neither loaded nor saved.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import (
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2_5OmniConfig,
    Qwen2_5OmniProcessor,
    Qwen2_5OmniThinkerForConditionalGeneration,
)
from transformers.utils import CONFIG_NAME, cached_file

from policies.batch import Clip
from policies.chat import INSTRUCTION, POOLED_RATE, PROMPT_TOKENS, ChatAdapter, decoder_layers, pooled_positions
from policies.checks import load_processor
from policies.dimensions import Dimensions
from policies.window import whisper_encoder
from rlhf_platform.errors import RecipeError
from rlhf_platform.types import Waveform

_PREFIX = "thinker."
_VISION = "thinker.visual."
_NAMED = {
    "audio_bos_token": "<|audio_bos|>",
    "audio_token": "<|AUDIO|>",
    "audio_eos_token": "<|audio_eos|>",
    "vision_bos_token": "<|vision_bos|>",
    "image_token": "<|IMAGE|>",
    "video_token": "<|VIDEO|>",
    "vision_eos_token": "<|vision_eos|>",
}
"""Control tokens by the attribute of the tokenizer."""


class Qwen25OmniThinkerAdapter(ChatAdapter):
    """Prompt: the turns that the published chat template writes for one clip and one instruction, with the system turn
    that the published examples of speech recognition have."""

    model_types = ("qwen2_5_omni",)
    vllm_architecture = "Qwen2_5OmniModel"
    vllm_serves_lora = True
    system = "You are a speech recognition model."
    user = f"{{audio}}{INSTRUCTION}"

    def __init__(self, path: Path | str) -> None:
        self._take(load_processor(Qwen2_5OmniProcessor, str(path), _NAMED), str(path))
        self.config = Qwen2_5OmniConfig.from_pretrained(path)
        thinker = self.config.thinker_config
        if thinker.tie_word_embeddings != thinker.text_config.tie_word_embeddings:
            raise RecipeError(
                f"backbone.path is {self.path!r}: tie_word_embeddings is {thinker.tie_word_embeddings} in its "
                f"thinker_config, which Transformers reads, and {thinker.text_config.tie_word_embeddings} in the "
                "text_config there, which vLLM reads; make them the same in config.json"
            )

    def load_model(self, dtype: torch.dtype) -> PreTrainedModel:
        model = _Thinker.from_pretrained(self.path, dtype=dtype, attn_implementation="sdpa")
        # Without gradients it would cost memory for its optimiser state, and weight decay would shrink it.
        del model.visual
        return model

    @classmethod
    def empty_model(cls, config: PreTrainedConfig) -> PreTrainedModel:
        model = _Thinker(config.thinker_config)
        del model.visual
        return model

    @classmethod
    def dimensions(cls, config: PreTrainedConfig) -> Dimensions:
        audio, text = config.thinker_config.audio_config, config.thinker_config.text_config
        encoder = whisper_encoder(audio, POOLED_RATE, audio.output_dim, padded=False)
        return Dimensions(decoder_layers(text), text.vocab_size, PROMPT_TOKENS, encoder)

    def save(self, model: PreTrainedModel, path: Path) -> None:
        """As a Qwen2.5-Omni without a talker: vLLM reads no thinker by itself."""
        state = {self.vllm_name(name): tensor for name, tensor in model.state_dict().items()}
        if not hasattr(model, "visual"):
            state |= self._vision_tower()
        if model.config.tie_word_embeddings:
            del state[_PREFIX + "lm_head.weight"]
        model.save_pretrained(path, state_dict=state, save_original_format=False)
        config = deepcopy(self.config)
        config.thinker_config = deepcopy(model.config)
        config.thinker_config.architectures = [Qwen2_5OmniThinkerForConditionalGeneration.__name__]
        config.enable_audio_output = False
        config.architectures = [self.vllm_architecture]
        config.save_pretrained(path)
        self.processor.save_pretrained(path)

    def _vision_tower(self) -> dict[str, Tensor]:
        """Its parameters as they lie on disk, by the names they have there."""
        found: dict[str, Tensor] = {}
        for file in sorted(Path(cached_file(self.path, CONFIG_NAME)).parent.glob("*.safetensors")):
            with safe_open(file, framework="pt") as tensors:
                found |= {name: tensors.get_tensor(name) for name in tensors.offset_keys() if name.startswith(_VISION)}
        return found

    def featurised(self, path: str, samples: Waveform) -> tuple[int, Clip]:
        positions, clip = super().featurised(path, samples)
        assert clip.features is not None
        assert clip.mask is not None
        # The published processor pads to 300 s. The encoder cuts the real frames into chunks of its own.
        frames = int(clip.mask.sum())
        return positions, replace(clip, features=clip.features[:, :frames].clone(), mask=clip.mask[:frames])

    def audio_states(self, model: PreTrainedModel, features: Tensor, mask: Tensor) -> list[Tensor]:
        states = model.get_audio_features(features, mask).last_hidden_state
        return list(states.split(pooled_positions(mask.sum(-1)).tolist()))

    def _adapted(self, model: PreTrainedModel, states: Tensor) -> Tensor:
        return states

    def _decoder(self, model: PreTrainedModel) -> Any:
        return model.model

    @classmethod
    def is_encoder(cls, parameter: str) -> bool:
        """The projection to the decoder's width is part of the published encoder, and of this one."""
        return parameter.startswith("audio_tower.")

    def vllm_name(self, parameter: str) -> str:
        return _PREFIX + parameter


class _Thinker(Qwen2_5OmniThinkerForConditionalGeneration):
    """Transformers' own, and what is before its output head callable by itself, as TRL's trainers call it."""

    @property
    def base_model(self) -> Callable[..., Any]:
        return self._states

    def _states(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        input_features: Tensor,
        feature_attention_mask: Tensor,
        **_: Any,
    ) -> Any:
        heard = self.get_audio_features(input_features, feature_attention_mask).last_hidden_state
        embeddings = self.get_input_embeddings()(input_ids)
        is_audio = (input_ids == self.config.audio_token_id).unsqueeze(-1)
        embeddings = embeddings.masked_scatter(is_audio, heard.to(embeddings.dtype))
        return self.model(inputs_embeds=embeddings, attention_mask=attention_mask, use_cache=False)
