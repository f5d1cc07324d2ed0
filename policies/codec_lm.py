"""Decoder language models over codec tokens: text in, speech out as the tokens of an audio codec. No encoder.

Llama and Qwen checkpoints as Transformers saves them, with `policies.tokenizer.audio_slot` names in the vocabulary.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from policies.adapter import refuse_dialogue
from policies.batch import EncodedPrompt
from policies.chat import PROMPT_TOKENS
from policies.checks import check_tokens
from policies.decoder_lm import DecoderLMAdapter
from policies.tokenizer import audio_slot, audio_token_ids
from rlhf_platform.errors import DataError, RecipeError
from rlhf_platform.types import Prompt


class CodecLMAdapter(DecoderLMAdapter):
    """Prompt: a user turn with the text to speak, and the assistant turn opened with `<|audio_start|>`."""

    prompt_tokens = PROMPT_TOKENS
    first_slot: ClassVar[str] = audio_slot(0)
    """Name of its first codec token."""
    controls: ClassVar[tuple[str, ...]] = ("<|im_start|>", "<|im_end|>", "<|audio_start|>")
    """Names of what stands around text and speech."""
    end: ClassVar[str] = "<|im_end|>"
    """Name of what ends a completion."""
    pad: ClassVar[str] = "<|im_end|>"
    """Name of what pads a batch where the tokenizer says nothing."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(path)
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

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        refuse_dialogue(prompt, "speaks")
        start, end, begin = (self._controls[name] for name in self.controls)
        user = (start, *self.pieces("user\n" + prompt.reference), end)
        tokens = (*user, *self.pieces("\n"), start, *self.pieces("assistant\n"), begin)
        return EncodedPrompt(tokens)

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
