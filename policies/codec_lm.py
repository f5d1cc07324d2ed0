"""Decoder language models over codec tokens: text in, speech out as the tokens of an audio codec. No encoder.

Llama and Qwen checkpoints as Transformers saves them, with `policies.tokenizer.audio_slot` names in the vocabulary.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedModel

from policies.adapter import PolicyAdapter, refuse_dialogue
from policies.batch import EncodedPrompt, PolicyBatch
from policies.chat import PROMPT_TOKENS, decoder_layers
from policies.checks import check_tokens
from policies.dimensions import Dimensions
from policies.tokenizer import audio_slot, audio_token_ids
from rlhf_platform.errors import DataError, RecipeError
from rlhf_platform.types import Prompt

_ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
"""vLLM's class by `model_type`."""


class CodecLMAdapter(PolicyAdapter):
    """Prompt: a user turn with the text to speak, and the assistant turn opened with `<|audio_start|>`."""

    model_types = tuple(_ARCHITECTURES)
    vllm_serves_lora = True
    first_slot: ClassVar[str] = audio_slot(0)
    """Name of its first codec token."""
    controls: ClassVar[tuple[str, ...]] = ("<|im_start|>", "<|im_end|>", "<|audio_start|>")
    """Names of what stands around text and speech."""
    end: ClassVar[str] = "<|im_end|>"
    """Name of what ends a completion."""
    pad: ClassVar[str] = "<|im_end|>"
    """Name of what pads a batch where the tokenizer says nothing."""

    def __init__(self, path: Path | str) -> None:
        self.path = str(path)
        self.vllm_architecture = _ARCHITECTURES[AutoConfig.from_pretrained(self.path).model_type]
        self.tokenizer = AutoTokenizer.from_pretrained(self.path)
        vocabulary = self.tokenizer.get_vocab()
        if self.first_slot not in vocabulary:
            raise RecipeError(
                f"backbone.path is {self.path!r}: its vocabulary has no codec tokens ({self.first_slot}, ...), so it "
                "cannot write speech; name a checkpoint that has them"
            )
        self._codec = audio_token_ids(self.tokenizer)
        check_tokens(self.path, self.tokenizer, self.controls)
        self._controls = {name: vocabulary[name] for name in self.controls}
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.pad

    def load_model(self, dtype: torch.dtype) -> PreTrainedModel:
        return AutoModelForCausalLM.from_pretrained(self.path, dtype=dtype, attn_implementation="sdpa")

    @classmethod
    def empty_model(cls, config: PreTrainedConfig) -> PreTrainedModel:
        model = AutoModelForCausalLM.from_config(config)
        model.tie_weights()
        return model

    @classmethod
    def dimensions(cls, config: PreTrainedConfig) -> Dimensions:
        return Dimensions(decoder_layers(config), config.vocab_size, PROMPT_TOKENS)

    def save(self, model: PreTrainedModel, path: Path) -> None:
        model.save_pretrained(path)
        self.tokenizer.save_pretrained(path)

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        refuse_dialogue(prompt, "speaks")
        start, end, begin = (self._controls[name] for name in self.controls)
        user = (start, *self.pieces("user\n" + prompt.reference), end)
        tokens = (*user, *self.pieces("\n"), start, *self.pieces("assistant\n"), begin)
        return EncodedPrompt(tokens)

    def vllm_prompt(self, prompt: Prompt) -> dict[str, Any]:
        return {"prompt_token_ids": list(self.encode(prompt).token_ids)}

    def audio_states(self, model: PreTrainedModel, features: Tensor, mask: Tensor) -> list[Tensor]:
        raise NotImplementedError(f"{type(self).__name__} hears no audio")

    def hidden_states(self, model: PreTrainedModel, batch: PolicyBatch, clips: Sequence[Tensor]) -> Tensor:
        decoder = model.model
        return decoder(batch.input_ids, **batch.seen_by(decoder.dtype), use_cache=False).last_hidden_state

    def model_inputs(self, batch: PolicyBatch, labels: Tensor) -> dict[str, Tensor]:
        return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": labels}

    @classmethod
    def is_encoder(cls, parameter: str) -> bool:
        return False

    def vllm_name(self, parameter: str) -> str:
        return parameter

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        return (self._controls[self.end],)

    @cached_property
    def completion_token_ids(self) -> tuple[int, ...]:
        return tuple(sorted({*self._codec, *self.end_token_ids}))

    def completion_text(self, tokens: Sequence[int]) -> str:
        return ""

    def target(self, prompt: Prompt) -> tuple[int, ...]:
        """The codec tokens of `metadata["codec"]`, a list of codec indices, and the end token.

        Raises DataError when they are missing or none of this vocabulary.
        """
        indices = prompt.metadata.get("codec")
        if not isinstance(indices, list | tuple) or not indices:
            raise DataError(f"prompt {prompt.id}: metadata has no list of codec indices named codec; encode its clip")
        for index in indices:
            if type(index) is not int or not 0 <= index < len(self._codec):
                raise DataError(
                    f"prompt {prompt.id}: metadata.codec holds {index!r}: allowed whole numbers 0 to "
                    f"{len(self._codec) - 1}, the codec tokens of {self.path}"
                )
        return (*(self._codec[index] for index in indices), *self.end_token_ids)
