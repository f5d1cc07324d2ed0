"""The Whisper layout: every clip padded to one window, an encoder, and a decoder that looks at it across.

The audio is not among the decoder's tokens: a prompt is the few control tokens that ask for a transcript.
"""

from collections.abc import Sequence
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    DynamicCache,
    EncoderDecoderCache,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    WhisperConfig,
    WhisperForConditionalGeneration,
    WhisperProcessor,
)

from policies.adapter import PolicyAdapter, refuse_dialogue
from policies.batch import Clip, EncodedPrompt, PolicyBatch
from policies.checks import check_sample_rate
from policies.dimensions import Dimensions, Layers
from policies.window import (
    RATE,
    check_window,
    covered_seconds,
    cut_positions,
    freeze_positions,
    positions_for,
    whisper_encoder,
)
from rlhf_platform.data.audio import load_audio
from rlhf_platform.errors import DataError
from rlhf_platform.types import Prompt, Waveform

_MULTILINGUAL_VOCABULARY = 51_865
"""The English-only models have one token fewer (github.com/openai/whisper, `is_multilingual`)."""


class _Unwritten(DynamicCache):
    """Keys and values of the decoder's own positions, which are all there at once: a layer that is computed anew for
    its backward must not find those of the first time."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        return key_states, value_states


class WhisperAdapter(PolicyAdapter):
    """Prompt: start of transcript, for multilingual models language and task, no timestamps."""

    model_types = ("whisper",)
    packs = False  # its decoder reads each clip apart, and counts positions itself
    vllm_architecture = "WhisperForConditionalGeneration"
    # vLLM 0.32 declares LoRA for this class, but counts the decoder's tokens only: LoRA in encoder or cross-attention,
    # which see as many positions as the window has, ends in an error.
    vllm_serves_lora = False
    lora_targets = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")

    def __init__(self, path: Path | str) -> None:
        self.path = str(path)
        self.config = WhisperConfig.from_pretrained(self.path)
        self.processor = WhisperProcessor.from_pretrained(self.path)
        self.tokenizer = self.processor.tokenizer
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.sample_rate = self.processor.feature_extractor.sampling_rate
        check_sample_rate(self.path, self.sample_rate)
        check_window(self.path, self.config.max_source_positions, self.processor.feature_extractor)

    def load_model(self, dtype: torch.dtype) -> PreTrainedModel:
        model = WhisperForConditionalGeneration.from_pretrained(self.path, dtype=dtype, attn_implementation="sdpa")
        freeze_positions(model.model.encoder)
        return model

    @classmethod
    def empty_model(cls, config: PreTrainedConfig) -> PreTrainedModel:
        model = WhisperForConditionalGeneration(config)
        model.tie_weights()
        freeze_positions(model.model.encoder)
        return model

    @classmethod
    def dimensions(cls, config: PreTrainedConfig) -> Dimensions:
        width = config.d_model
        decoder = Layers(config.decoder_layers, width, width, width, config.decoder_ffn_dim, crosses=True)
        encoder = whisper_encoder(config, RATE, width, padded=True)
        return Dimensions(decoder, config.vocab_size, prompt_tokens=4, encoder=encoder)

    @classmethod
    def shortened(cls, config: PreTrainedConfig, seconds: float) -> PreTrainedConfig:
        config = deepcopy(config)
        config.max_source_positions = min(config.max_source_positions, positions_for(seconds))
        return config

    def save(self, model: PreTrainedModel, path: Path) -> None:
        model.save_pretrained(path)
        self.processor.save_pretrained(path)

    def window(self) -> float:
        return covered_seconds(self.config.max_source_positions, self.processor.feature_extractor)

    def cut_window(self, seconds: float, path: Path) -> None:
        model = self.load_model(torch.float32)
        cut_positions(model.model.encoder, self.processor.feature_extractor, seconds)
        self.save(model, path)

    def _prompt_tokens(self, prompt: Prompt) -> tuple[int, ...]:
        names = ["<|startoftranscript|>", "<|notimestamps|>"]
        if self.config.vocab_size >= _MULTILINGUAL_VOCABULARY:
            names[1:1] = [f"<|{prompt.language}|>", "<|transcribe|>"]
        elif prompt.language != "en":
            raise DataError(f"prompt {prompt.id}: language is {prompt.language!r}, this backbone knows en only")
        tokens = self.tokenizer.convert_tokens_to_ids(names)
        if None in tokens or self.tokenizer.unk_token_id in tokens[1:]:
            raise DataError(f"prompt {prompt.id}: language is {prompt.language!r}, which this backbone does not know")
        return tuple(tokens)

    def _samples(self, prompt: Prompt) -> Waveform:
        refuse_dialogue(prompt, "transcribes")
        if not prompt.audio:
            raise DataError(
                f"prompt {prompt.id}: audio is empty, and this backbone only transcribes; name a clip, or take the "
                "prompt out of the manifest"
            )
        return load_audio(prompt.audio, self.sample_rate)

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        samples = self._samples(prompt)
        features = self.processor.feature_extractor(
            samples, sampling_rate=self.sample_rate, return_tensors="pt"
        ).input_features[0]
        seconds, mask = len(samples) / self.sample_rate, torch.ones(features.shape[1], dtype=torch.long)
        return EncodedPrompt(self._prompt_tokens(prompt), (Clip(prompt.audio, seconds, features, mask),))

    def vllm_prompt(self, prompt: Prompt) -> dict[str, Any]:
        samples = self._samples(prompt)
        return {
            "encoder_prompt": {"prompt": "", "multi_modal_data": {"audio": samples}},
            "decoder_prompt": {"prompt_token_ids": list(self._prompt_tokens(prompt))},
        }

    def audio_states(self, model: PreTrainedModel, features: Tensor, mask: Tensor) -> list[Tensor]:
        return list(model.model.encoder(features).last_hidden_state)

    def hidden_states(self, model: PreTrainedModel, batch: PolicyBatch, clips: Sequence[Tensor]) -> Tensor:
        audio = torch.stack(list(clips))
        decoder = model.model.decoder
        # Keys and values of the cross-attention are projected once per clip, not once per completion: with eight
        # completions of a clip that is most of the decoder's work.
        cache = EncoderDecoderCache(_Unwritten(), DynamicCache())
        for number, layer in enumerate(decoder.layers):
            attention = layer.encoder_attn
            heads = (len(audio), -1, attention.num_heads, attention.head_dim)
            keys, values = (
                project(audio).view(heads).transpose(1, 2)[batch.clip_index[:, 0]]
                for project in (attention.k_proj, attention.v_proj)
            )
            cache.cross_attention_cache.update(keys, values, number)
            cache.is_updated[number] = True
        return decoder(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            encoder_hidden_states=audio,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state

    def model_inputs(self, batch: PolicyBatch, labels: Tensor) -> dict[str, Tensor]:
        features, mask = batch.audio
        return {
            "input_features": features,
            "attention_mask": mask,
            "decoder_input_ids": batch.input_ids,
            "decoder_attention_mask": batch.attention_mask,
            "labels": labels,
        }

    @classmethod
    def is_encoder(cls, parameter: str) -> bool:
        return parameter.startswith("model.encoder.")

    def vllm_name(self, parameter: str) -> str:
        return parameter

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        return (self.tokenizer.eos_token_id,)

    @cached_property
    def completion_token_ids(self) -> tuple[int, ...]:
        """Text pieces without those that Whisper's own decoding suppresses (brackets, music signs)."""
        pieces = set(self.tokenizer.get_vocab().values()) - set(self.tokenizer.added_tokens_decoder)
        suppressed = GenerationConfig.from_pretrained(self.path).suppress_tokens or ()
        return tuple(sorted((pieces - set(suppressed)) | set(self.end_token_ids)))

    def completion_text(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True)).strip()
