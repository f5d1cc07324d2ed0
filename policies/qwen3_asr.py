"""The Qwen3-ASR layout: chunked convolutional encoder, two-layer adaptor, Qwen3 decoder.

One code for the tiny backbone and for a full Qwen3-ASR checkpoint in Transformers layout.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, Qwen3ASRForConditionalGeneration, Qwen3ASRProcessor
from transformers.models.qwen3_asr.processing_qwen3_asr import LANGUAGE_CODE_TO_NAME

from policies.adapter import put_audio, written_text
from policies.batch import PolicyBatch
from policies.chat import decoder_layers
from policies.checks import check_sample_rate, check_tokens, load_processor
from policies.dialogue import TURN_END, TURN_START, Segment, TurnsAdapter
from policies.dimensions import FRAME_RATE, Dimensions, Encoder, Layers
from rlhf_platform.errors import DataError
from rlhf_platform.types import Prompt, Waveform

_TEXT_MARK = "<asr_text>"
_NAMED = {"audio_bos_token": "<|audio_start|>", "audio_token": "<|audio_pad|>", "audio_eos_token": "<|audio_end|>"}
"""Control tokens by the attribute of the tokenizer."""
_RATE = 13
"""Encoder positions of a chunk of one second, which three convolutions of stride 2 make of its 100 frames."""


class Qwen3ASRAdapter(TurnsAdapter):
    """Prompt: a user turn with the audio, and the assistant turn opened with the language and `<asr_text>`.

    Without audio: a user turn with the text, and the assistant turn, which opens with nothing: no language was heard.
    Nor does it in a dialogue, where the reply need not be in the language of the turn.
    """

    model_types = ("qwen3_asr",)
    vllm_architecture = "Qwen3ASRForConditionalGeneration"
    vllm_serves_lora = True
    has_mtp = True
    mask_name = "input_features_mask"

    def __init__(self, path: Path | str) -> None:
        self.path = str(path)
        self.processor = load_processor(Qwen3ASRProcessor, self.path, _NAMED)
        self.tokenizer = self.processor.tokenizer
        self.sample_rate = self.processor.feature_extractor.sampling_rate
        check_sample_rate(self.path, self.sample_rate)
        check_tokens(self.path, self.tokenizer, (TURN_START, TURN_END, _TEXT_MARK))
        self._end = tuple({self.tokenizer.eos_token_id, self.tokenizer.convert_tokens_to_ids(TURN_END)})

    def load_model(self, dtype: torch.dtype) -> PreTrainedModel:
        return Qwen3ASRForConditionalGeneration.from_pretrained(self.path, dtype=dtype, attn_implementation="sdpa")

    @classmethod
    def empty_model(cls, config: PreTrainedConfig) -> PreTrainedModel:
        model = Qwen3ASRForConditionalGeneration(config)
        model.tie_weights()
        return model

    @classmethod
    def dimensions(cls, config: PreTrainedConfig) -> Dimensions:
        audio, text = config.audio_config, config.text_config
        width = audio.d_model
        layers = Layers(audio.encoder_layers, width, width, width, audio.encoder_ffn_dim)
        mel, frames, maps = audio.num_mel_bins, FRAME_RATE, 0
        for _ in range(3):
            mel, frames = -(-mel // 2), -(-frames // 2)
            maps += 2 * mel * frames  # input and output of the GELU
        chunk = audio.num_mel_bins * FRAME_RATE + maps * audio.downsample_hidden_size
        encoder = Encoder(layers, _RATE, _RATE, audio.output_dim, audio.num_mel_bins, chunk // _RATE, padded=False)
        return Dimensions(decoder_layers(text), text.vocab_size, prompt_tokens=32, encoder=encoder)

    def save(self, model: PreTrainedModel, path: Path) -> None:
        model.save_pretrained(path)
        self.processor.save_pretrained(path)

    def turns(self, prompt: Prompt) -> list[Segment]:
        if not prompt.audio:
            return self.spelt(f"{TURN_START}user\n", written_text(prompt), f"{TURN_END}\n{TURN_START}assistant\n")
        if prompt.language not in LANGUAGE_CODE_TO_NAME:
            allowed = ", ".join(sorted(LANGUAGE_CODE_TO_NAME))
            raise DataError(f"prompt {prompt.id}: language is {prompt.language!r}, this backbone knows {allowed}")
        opening = f"language {LANGUAGE_CODE_TO_NAME[prompt.language]}{_TEXT_MARK}"
        return self.around(prompt.audio, f"{TURN_START}user\n{{audio}}{TURN_END}\n{TURN_START}assistant\n{opening}")

    def samples(self, path: str) -> Waveform:
        """The clip, with silence up to one encoder chunk (1 s).

        vLLM pads the chunks of a batch to the longest of them, Transformers to a whole chunk. With a trained (not zero)
        convolution bias the last position of a shorter clip would thus depend on which clips it was served with.
        """
        extractor = self.processor.feature_extractor
        samples = super().samples(path)
        missing = 2 * extractor.n_window * extractor.hop_length - len(samples)
        return np.pad(samples, (0, missing)) if missing > 0 else samples

    def silence(self) -> tuple[Tensor, Tensor] | None:
        extractor = self.processor.feature_extractor
        frames = 2 * extractor.n_window
        return torch.zeros(1, extractor.feature_size, frames), torch.ones(1, frames, dtype=torch.long)

    def audio_states(self, model: PreTrainedModel, features: Tensor, mask: Tensor) -> list[Tensor]:
        flat = model.model.audio_tower(input_features=features, input_features_mask=mask).last_hidden_state
        lengths = self.processor._get_audio_token_length(mask.sum(-1))
        return list(flat.split([int(n) for n in lengths]))

    def hidden_states(self, model: PreTrainedModel, batch: PolicyBatch, clips: Sequence[Tensor]) -> Tensor:
        embeddings = self.input_embeddings(model, batch, clips)
        decoder = model.model.language_model
        return decoder(inputs_embeds=embeddings, **batch.seen_by(decoder.dtype), use_cache=False).last_hidden_state

    def input_embeddings(self, model: PreTrainedModel, batch: PolicyBatch, clips: Sequence[Tensor]) -> Tensor:
        positions = model.model.multi_modal_projector(torch.cat(list(clips))).split([len(clip) for clip in clips])
        return put_audio(model, batch, positions, self.placeholder)

    def model_inputs(self, batch: PolicyBatch, labels: Tensor) -> dict[str, Tensor]:
        features, mask = batch.audio
        return {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
            "input_features": features,
            self.mask_name: mask,
            "labels": labels,
        }

    @classmethod
    def is_encoder(cls, parameter: str) -> bool:
        return parameter.startswith("model.audio_tower.")

    @classmethod
    def is_adaptor(cls, parameter: str) -> bool:
        return parameter.startswith("model.multi_modal_projector.")

    def vllm_name(self, parameter: str) -> str:
        # vLLM's own map covers all Transformers names but the head, which it would drop without a word.
        return "language_model.lm_head.weight" if parameter == "lm_head.weight" else parameter

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        return self._end

    @property
    def completion_token_ids(self) -> tuple[int, ...]:
        pieces = set(self.tokenizer.get_vocab().values()) - set(self.tokenizer.added_tokens_decoder)
        return tuple(sorted(pieces | set(self._end)))

    def completion_text(self, tokens: Sequence[int]) -> str:
        text = self.tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text.rsplit(_TEXT_MARK, 1)[-1].strip()
