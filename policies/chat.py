"""What chat layouts share in which the audio stands among the tokens of a user turn."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin

from policies.adapter import put_audio, written_text
from policies.batch import PolicyBatch
from policies.checks import check_sample_rate, check_tokens
from policies.dialogue import TURN_END, TURN_START, Segment, TurnsAdapter
from policies.dimensions import FRAME_RATE, Layers
from rlhf_platform.types import Prompt

INSTRUCTION = "Transcribe the audio into text."
PROMPT_TOKENS = 48
"""Of the turns around the audio with a vocabulary of words, rounded up; one of a few hundred pieces takes more."""
POOLED_RATE = FRAME_RATE / 4
"""Audio positions per second, as `pooled_positions` counts them."""


class ChatAdapter(TurnsAdapter):
    """A system turn, a user turn with the audio and what is asked of it. Without audio the user turn is the text alone.

    In a dialogue the persona is the system turn.
    """

    mask_name = "feature_attention_mask"
    system: ClassVar[str]
    """What the system turn says."""
    user: ClassVar[str]
    """What the user turn of a prompt with audio says, with `{audio}` where its marks and placeholder go."""

    def _take(self, processor: ProcessorMixin, path: str) -> None:
        """Take tokenizer and rate of the checkpoint's processor. Raises RecipeError when they do not fit."""
        self.path = path
        self.processor = processor
        self.tokenizer = self.processor.tokenizer
        self.sample_rate = self.processor.feature_extractor.sampling_rate
        marks = (self.processor.audio_bos_token, self.processor.audio_token, self.processor.audio_eos_token)
        check_sample_rate(path, self.sample_rate)
        check_tokens(path, self.tokenizer, (TURN_START, TURN_END, *marks))
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = TURN_END
        self._turn_end = self.tokenizer.convert_tokens_to_ids(TURN_END)

    def turns(self, prompt: Prompt) -> list[Segment]:
        before = f"{TURN_START}system\n{self.system}{TURN_END}\n{TURN_START}user\n"
        after = f"{TURN_END}\n{TURN_START}assistant\n"
        if not prompt.audio:
            return self.spelt(before, written_text(prompt), after)
        return self.around(prompt.audio, before + self.user + after)

    def silence(self) -> tuple[Tensor, Tensor]:
        _, clip = self.featurised("", np.zeros(self.sample_rate, dtype=np.float32))
        assert clip.features is not None
        assert clip.mask is not None
        return clip.features[None], clip.mask[None]

    @abstractmethod
    def _adapted(self, model: PreTrainedModel, states: Tensor) -> Tensor:
        """Encoder output (positions, width) as decoder inputs (positions, H)."""

    @abstractmethod
    def _decoder(self, model: PreTrainedModel) -> Any: ...

    def hidden_states(self, model: PreTrainedModel, batch: PolicyBatch, clips: Sequence[Tensor]) -> Tensor:
        positions = self._adapted(model, torch.cat(list(clips))).split([len(clip) for clip in clips])
        embeddings = put_audio(model, batch, positions, self.placeholder)
        decoder = self._decoder(model)
        return decoder(inputs_embeds=embeddings, **batch.seen_by(decoder.dtype), use_cache=False).last_hidden_state

    def model_inputs(self, batch: PolicyBatch, labels: Tensor) -> dict[str, Tensor]:
        features, mask = batch.audio
        return {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
            "input_features": features,
            self.mask_name: mask,
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
