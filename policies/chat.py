"""What chat layouts share in which the audio stands among the tokens of a user turn."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin

from policies.adapter import PolicyAdapter, put_audio, written_text
from policies.batch import EncodedPrompt, PolicyBatch
from policies.checks import check_sample_rate, check_tokens
from policies.dimensions import FRAME_RATE, Layers
from rlhf_platform.data.audio import load_audio
from rlhf_platform.types import Prompt, Waveform

INSTRUCTION = "Transcribe the audio into text."
PROMPT_TOKENS = 48
"""Of the turns around the audio with a vocabulary of words, rounded up; one of a few hundred pieces takes more."""
POOLED_RATE = FRAME_RATE / 4
"""Audio positions per second, as `pooled_positions` counts them."""
_TURN_START, _TURN_END = "<|im_start|>", "<|im_end|>"


class ChatAdapter(PolicyAdapter):
    """ChatML turns; one token per audio position, which the processor puts in for the one that the layout has.

    Without audio the user turn is the text alone.
    """

    system: ClassVar[str]
    """What the system turn says."""
    user: ClassVar[str]
    """What the user turn of a prompt with audio says, with `{audio}` where its marks and placeholder go."""
    processor: Any

    def _take(self, processor: ProcessorMixin, path: str) -> None:
        """Take tokenizer and rate of the checkpoint's processor. Raises RecipeError when they do not fit."""
        self.path = path
        self.processor = processor
        self.tokenizer = self.processor.tokenizer
        self.sample_rate = self.processor.feature_extractor.sampling_rate
        marks = (self.processor.audio_bos_token, self.processor.audio_token, self.processor.audio_eos_token)
        check_sample_rate(path, self.sample_rate)
        check_tokens(path, self.tokenizer, (_TURN_START, _TURN_END, *marks))
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = _TURN_END
        self._placeholder = self.tokenizer.convert_tokens_to_ids(self.processor.audio_token)
        self._turn_end = self.tokenizer.convert_tokens_to_ids(_TURN_END)
        self._before = f"{_TURN_START}system\n{self.system}{_TURN_END}\n{_TURN_START}user\n"
        self._after = f"{_TURN_END}\n{_TURN_START}assistant\n"
        self._text = self._before + self.user.format(audio="".join(marks)) + self._after

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        if prompt.audio:
            return self._encoded(load_audio(prompt.audio, self.sample_rate))
        text = self.pieces(written_text(prompt))
        before, after = map(self.tokenizer.encode, (self._before, self._after))
        return EncodedPrompt((*before, *text, *after), has_audio=False)

    def _encoded(self, samples: Waveform) -> EncodedPrompt:
        """The prompt with these samples as its clip."""
        inputs = self.processor(text=[self._text], audio=[samples], sampling_rate=self.sample_rate, return_tensors="pt")
        tokens = tuple(inputs["input_ids"][0].tolist())
        return EncodedPrompt(tokens, inputs["input_features"][0], inputs["feature_attention_mask"][0].long())

    def silence(self) -> tuple[Tensor, Tensor]:
        encoded = self._encoded(np.zeros(self.sample_rate, dtype=np.float32))
        assert encoded.features is not None
        assert encoded.features_mask is not None
        return encoded.features[None], encoded.features_mask[None]

    def vllm_prompt(self, prompt: Prompt) -> dict[str, Any]:
        if not prompt.audio:
            return {"prompt_token_ids": list(self.encode(prompt).token_ids)}
        return {
            "prompt_token_ids": self.tokenizer.encode(self._text),
            "multi_modal_data": {"audio": load_audio(prompt.audio, self.sample_rate)},
        }

    @abstractmethod
    def _adapted(self, model: PreTrainedModel, states: Tensor) -> Tensor:
        """Encoder output (positions, width) as decoder inputs (positions, H)."""

    @abstractmethod
    def _decoder(self, model: PreTrainedModel) -> Any: ...

    def hidden_states(self, model: PreTrainedModel, batch: PolicyBatch, clips: Sequence[Tensor]) -> Tensor:
        positions = self._adapted(model, torch.cat(list(clips))).split([len(clip) for clip in clips])
        embeddings = put_audio(model, batch, positions, self._placeholder)
        decoder = self._decoder(model)
        return decoder(inputs_embeds=embeddings, **batch.seen_by(decoder.dtype), use_cache=False).last_hidden_state

    def model_inputs(self, batch: PolicyBatch, labels: Tensor) -> dict[str, Tensor]:
        features, mask = batch.audio
        return {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
            "input_features": features,
            "feature_attention_mask": mask,
            "labels": labels,
        }

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        return tuple(sorted({self._turn_end, self.tokenizer.eos_token_id}))

    @cached_property
    def completion_token_ids(self) -> tuple[int, ...]:
        pieces = set(self.tokenizer.get_vocab().values()) - set(self.tokenizer.added_tokens_decoder)
        return tuple(sorted(pieces | set(self.end_token_ids)))

    def completion_text(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True)).strip()

    def transcript_tokens(self, text: str) -> tuple[int, ...]:
        # Base models name another end token, but a turn of this layout ends with its own mark.
        return (*super().transcript_tokens(text)[:-1], self._turn_end)


def pooled_positions(frames: Tensor) -> Tensor:
    """Audio positions of clips of `frames` mel frames (C,): a convolution of stride 2, then pairs are averaged."""
    return ((frames - 1) // 2 + 1 - 2) // 2 + 1


def decoder_layers(config: Any) -> Layers:
    """The layers of a Llama, Qwen2 or Qwen3 decoder."""
    heads = config.num_attention_heads
    head_width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return Layers(
        config.num_hidden_layers,
        config.hidden_size,
        heads * head_width,
        config.num_key_value_heads * head_width,
        config.intermediate_size,
        gated=True,
        normed_heads="qwen3" in config.model_type,
    )
