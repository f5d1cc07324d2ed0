"""Decoder language models that chat in text, such as a judge of dialogues: messages in, text out. No audio."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from policies.batch import EncodedPrompt
from policies.decoder_lm import DecoderLMAdapter
from rlhf_platform.errors import DataError, RecipeError
from rlhf_platform.types import Prompt

_ROLES = ("system", "user", "assistant")
_ASKED = {"role": "user", "content": "a"}
_ANSWER = "<answer>"
"""Stands for an answer where it is looked up what follows one; no tokenizer sees it."""


class TextLMAdapter(DecoderLMAdapter):
    """Prompt: `metadata["messages"]` in the chat template of the checkpoint, and the assistant's turn opened.

    The tokens are those that vLLM's chat endpoint makes of the same messages.
    """

    prompt_tokens = 256

    def __init__(self, path: Path | str) -> None:
        super().__init__(path)
        if not self.tokenizer.chat_template:
            raise RecipeError(
                f"backbone.path is {self.path!r}: its tokenizer has no chat template, so nothing says what a question "
                "looks like; name a checkpoint that was trained to chat"
            )
        after = self._written([_ASKED, {"role": "assistant", "content": _ANSWER}], opened=False).rpartition(_ANSWER)[2]
        first = self.tokenizer.encode(after, add_special_tokens=False)[:1]
        if not first or first[0] not in self._controls.values():
            raise RecipeError(
                f"backbone.path is {self.path!r}: its chat template ends no answer with a control token, so none would "
                "end; name a checkpoint that was trained to chat"
            )
        self._turn_end = first[0]
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.convert_ids_to_tokens(self._turn_end)

    @cached_property
    def _controls(self) -> dict[str, int]:
        return {str(token): index for index, token in self.tokenizer.added_tokens_decoder.items()}

    def _written(self, messages: Sequence[Mapping[str, str]], opened: bool) -> str:
        return str(self.tokenizer.apply_chat_template(list(messages), add_generation_prompt=opened, tokenize=False))

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        """Raises DataError for a prompt without messages, or one in which a message spells a control token."""
        text = self._written(self._messages(prompt), opened=True)
        return EncodedPrompt(tuple(self.tokenizer.encode(text, add_special_tokens=False)))

    def _messages(self, prompt: Prompt) -> Sequence[Mapping[str, str]]:
        messages = prompt.metadata.get("messages")
        if not isinstance(messages, list | tuple) or not messages:
            raise DataError(f"prompt {prompt.id}: metadata has no list named messages; a text model is asked by them")
        for number, message in enumerate(messages, start=1):
            if not isinstance(message, Mapping):
                raise DataError(f"prompt {prompt.id}: message {number} is no object of role and content")
            role, content = message.get("role"), message.get("content")
            if role not in _ROLES or not isinstance(content, str):
                raise DataError(
                    f"prompt {prompt.id}: message {number} is of role {role!r} with content {content!r}; "
                    f"allowed are text of {', '.join(_ROLES)}"
                )
            spelt = [name for name in self._controls if name in content]
            if spelt:
                raise DataError(
                    f"prompt {prompt.id}: message {number} holds {spelt[0]!r}, which would end or open a turn; take it "
                    "out of the text"
                )
        return messages

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        return tuple(sorted({self._turn_end, self.tokenizer.eos_token_id} - {None}))

    @cached_property
    def completion_token_ids(self) -> tuple[int, ...]:
        pieces = set(self.tokenizer.get_vocab().values()) - set(self._controls.values())
        return tuple(sorted(pieces | set(self.end_token_ids)))

    def completion_text(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True)).strip()

    def transcript_tokens(self, text: str) -> tuple[int, ...]:
        return (*self.pieces(text), self._turn_end)
