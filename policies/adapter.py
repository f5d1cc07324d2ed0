"""What the platform asks of an architecture. Nothing outside `policies/` mentions one by name."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from policies.batch import EncodedPrompt
from rlhf_platform.types import Prompt


class PolicyAdapter(ABC):
    """Processor, prompt layout, audio call, names for vLLM and what is frozen, for one checkpoint in one layout."""

    tokenizer: PreTrainedTokenizerBase
    sample_rate: int
    """Hz; every clip is decoded at this rate."""

    @abstractmethod
    def __init__(self, path: Path | str) -> None: ...

    @abstractmethod
    def load_model(self, dtype: torch.dtype) -> PreTrainedModel:
        """The checkpoint as a Transformers model on the CPU, in training layout."""

    @abstractmethod
    def save(self, model: PreTrainedModel, path: Path) -> None:
        """Write model, tokenizer and processor in Hugging Face layout."""

    @abstractmethod
    def encode(self, prompt: Prompt) -> EncodedPrompt:
        """The learner's view of a prompt. A clip is featurised by itself, so its features depend on no other clip."""

    @abstractmethod
    def vllm_prompt(self, prompt: Prompt) -> dict[str, Any]:
        """vLLM's view of the same prompt: token ids and the decoded waveform."""

    @abstractmethod
    def audio_states(self, model: PreTrainedModel, features: Tensor, mask: Tensor) -> list[Tensor]:
        """Encoder output per clip, each (positions, width), before the adaptor."""

    @abstractmethod
    def hidden_states(
        self, model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, audio: Sequence[Tensor]
    ) -> Tensor:
        """Last hidden states (B, S, H) of `input_ids` (B, S), with encoder output `audio[i]` put into row i."""

    @abstractmethod
    def is_encoder(self, parameter: str) -> bool:
        """Whether a parameter belongs to the audio encoder (frozen by `learner.freeze_encoder`)."""

    @abstractmethod
    def vllm_name(self, parameter: str) -> str:
        """The name under which vLLM loads a Transformers parameter."""

    @property
    @abstractmethod
    def end_token_ids(self) -> tuple[int, ...]:
        """Tokens that end a completion."""

    @property
    @abstractmethod
    def text_token_ids(self) -> tuple[int, ...]:
        """What the ASR branch may write: text pieces and the end token, no control and no audio token."""

    @abstractmethod
    def completion_text(self, tokens: Sequence[int]) -> str:
        """The transcript in a completion."""

    def target(self, text: str) -> tuple[int, ...]:
        """The completion that a transcript is: its pieces (also of what spells a control token) and the end token."""
        pieces = self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        return (*pieces, self.tokenizer.eos_token_id)

    def vllm_weights(self, model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
        """Every parameter under vLLM's name, detached."""
        for name, parameter in model.named_parameters():
            yield self.vllm_name(name), parameter.detach()
