"""What the platform asks of an architecture. Nothing outside `policies/` mentions one by name."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from policies.batch import EncodedPrompt, PolicyBatch
from policies.dimensions import Dimensions
from policies.token_rule import Band, TokenRule
from rlhf_platform.data.dialogue import is_dialogue
from rlhf_platform.errors import DataError
from rlhf_platform.types import Prompt

_AS_PIECES = {"add_special_tokens": False, "split_special_tokens": True}


class PolicyAdapter(ABC):
    """Processor, prompt layout, audio call, names for vLLM and what is frozen, for one checkpoint in one layout."""

    model_types: ClassVar[tuple[str, ...]]
    """`model_type` in the config.json of the checkpoints that this layout reads."""
    vllm_architecture: str
    """The class that vLLM must know to serve the layout."""
    vllm_serves_lora: ClassVar[bool] = False
    """Whether vLLM takes a LoRA adapter for this layout; if not, it is sent merged into the weights."""
    has_mtp: ClassVar[bool] = False
    """Whether heads of multi-token prediction (`policies.mtp`) fit the decoder: it is Qwen3's."""
    packs: ClassVar[bool] = True
    """Whether the decoder takes several completions behind one prompt, told apart by mask and positions."""
    lora_targets: ClassVar[tuple[str, ...]] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    """Last part of the names of the linear layers in the decoder's attention and MLP."""

    tokenizer: PreTrainedTokenizerBase
    sample_rate: int
    """Hz; every clip is decoded at this rate."""

    @abstractmethod
    def __init__(self, path: Path | str) -> None:
        """Raises RecipeError when tokenizer or processor at `path` are not what the layout needs."""

    @abstractmethod
    def load_model(self, dtype: torch.dtype) -> PreTrainedModel:
        """The checkpoint as a Transformers model on the CPU, in training layout."""

    @abstractmethod
    def save(self, model: PreTrainedModel, path: Path) -> None:
        """Write model, tokenizer and processor so that Transformers and vLLM both read them."""

    def window(self) -> float | None:
        """Seconds that every clip is padded to and none may exceed; None where features follow the clip's length."""
        return None

    def cut_window(self, seconds: float, path: Path) -> None:
        """Write the checkpoint anew with a window of `seconds`, shorter than `window()`, for layouts that have one."""
        raise NotImplementedError(f"{type(self).__name__} has no fixed window")

    @abstractmethod
    def encode(self, prompt: Prompt) -> EncodedPrompt:
        """The learner's view of a prompt. A clip is featurised by itself, so its features depend on no other clip.

        In layouts that chat, a prompt may be a dialogue (`rlhf_platform.data.dialogue`), and one whose `audio` is empty
        is the user's turn that `metadata["text"]` spells. Raises DataError for a prompt that the layout cannot ask.
        """

    @abstractmethod
    def vllm_prompt(self, prompt: Prompt) -> dict[str, Any]:
        """vLLM's view of the same prompt: token ids and, where it has audio, the decoded waveform of each clip."""

    def silence(self) -> tuple[Tensor, Tensor] | None:
        """Features (1, M, F) and mask (1, F) of a second of silence, for ranks whose batch has no audio; None where
        the layout has no encoder."""
        return None

    @abstractmethod
    def audio_states(self, model: PreTrainedModel, features: Tensor, mask: Tensor) -> list[Tensor]:
        """Encoder output per clip, each (positions, width), before the adaptor."""

    @abstractmethod
    def hidden_states(self, model: PreTrainedModel, batch: PolicyBatch, clips: Sequence[Tensor]) -> Tensor:
        """Last decoder states (B, S, H) at `batch.input_ids` (B, S), given the encoder output of each clip (C).

        Where no row has audio, `clips` is that of a silent clip, which goes through the adaptor and counts for nothing.
        """

    def input_embeddings(self, model: PreTrainedModel, batch: PolicyBatch, clips: Sequence[Tensor]) -> Tensor:
        """What the decoder reads, (B, S, H), of the same arguments; in layouts with `has_mtp`."""
        raise NotImplementedError(f"{type(self).__name__} has no heads of multi-token prediction")

    @abstractmethod
    def model_inputs(self, batch: PolicyBatch, labels: Tensor) -> dict[str, Tensor]:
        """The batch as keywords of the Transformers model's forward, for TRL's trainers.

        `labels` (B, S): at each position of `batch.input_ids` the token that stands there, or -100. They stay as they
        are in every layout: TRL's output head compares position t with label t + 1.
        """

    @classmethod
    @abstractmethod
    def empty_model(cls, config: PreTrainedConfig) -> PreTrainedModel:
        """The model that `load_model` gives for this configuration, tied and frozen alike, without its weights.

        To be called on the meta device, where tensors have shapes and no memory.
        """

    @classmethod
    @abstractmethod
    def dimensions(cls, config: PreTrainedConfig) -> Dimensions:
        """The sizes that a configuration of this layout gives."""

    @classmethod
    def shortened(cls, config: PreTrainedConfig, seconds: float) -> PreTrainedConfig:
        """The configuration of what `cut_window` writes; as it is in layouts without a window."""
        return config

    @classmethod
    @abstractmethod
    def is_encoder(cls, parameter: str) -> bool:
        """Whether a parameter belongs to the audio encoder (frozen by `learner.freeze_encoder`)."""

    @classmethod
    def is_adaptor(cls, parameter: str) -> bool:
        """Whether a parameter belongs to what stands between encoder and decoder (trained alone by `align`)."""
        return False

    @abstractmethod
    def vllm_name(self, parameter: str) -> str:
        """The name under which vLLM loads a Transformers parameter."""

    @property
    @abstractmethod
    def end_token_ids(self) -> tuple[int, ...]:
        """Tokens that end a completion."""

    @property
    @abstractmethod
    def completion_token_ids(self) -> tuple[int, ...]:
        """All that a completion may hold, ascending, end tokens included; nothing else is ever sampled.

        For transcripts: text pieces, no control and no audio token. For speech: codec tokens, no text.
        """

    @property
    def rule(self) -> TokenRule:
        """What of that may stand where."""
        ends = self.end_token_ids
        return TokenRule((tuple(t for t in self.completion_token_ids if t not in ends),), ends)

    def band(self, prompt: Prompt) -> Band:
        """How long an answer to the prompt may be."""
        return Band(0, None)

    @abstractmethod
    def completion_text(self, tokens: Sequence[int]) -> str:
        """The transcript in a completion."""

    def target(self, prompt: Prompt) -> tuple[int, ...]:
        """The completion to learn: the transcript and the end token."""
        return self.transcript_tokens(prompt.reference)

    def transcript_tokens(self, text: str) -> tuple[int, ...]:
        """The completion that a transcript is: its pieces (also of what spells a control token) and the end token."""
        return (*self.pieces(text), self.tokenizer.eos_token_id)

    def pieces(self, text: str) -> list[int]:
        """Text as text pieces, also what spells a control token: a user's text cannot end its own turn."""
        found = self.tokenizer.encode(text, **_AS_PIECES)
        return [piece for token in found for piece in self._cut.get(token, (token,))]

    @cached_property
    def _cut(self) -> dict[int, list[int]]:
        """The pieces of tokens that were added and are not called special, as `<think>` in Qwen3's vocabulary: the
        tokenizer would take them whole, and no completion may hold them."""
        added = {token: str(entry) for token, entry in self.tokenizer.added_tokens_decoder.items() if not entry.special}
        return {
            token: [piece for part in (text[:1], text[1:]) for piece in self.tokenizer.encode(part, **_AS_PIECES)]
            for token, text in added.items()
        }

    def vllm_weights(self, model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
        """Every parameter under vLLM's name, detached. A tied head is its embedding, and sent once."""
        for name, parameter in model.named_parameters():
            yield self.vllm_name(name), parameter.detach()


def put_audio(model: PreTrainedModel, batch: PolicyBatch, clips: Sequence[Tensor], placeholder: int) -> Tensor:
    """Input embeddings (B, S, H) with `clips[c]` (positions, H), adaptor output, at their placeholders in c's rows.

    Without a row that has audio the clips are added times 0, so that every rank's backward reaches what made them.
    """
    embeddings: Tensor = model.get_input_embeddings()(batch.input_ids)
    heard = [clips[clip] for clip in batch.clip_index.flatten().tolist() if clip >= 0]
    if not heard:
        return embeddings + 0.0 * torch.cat(list(clips)).sum().to(embeddings.dtype)
    is_audio = (batch.input_ids == placeholder).unsqueeze(-1).expand_as(embeddings)
    return embeddings.masked_scatter(is_audio, torch.cat(heard).to(embeddings.dtype))


def written_text(prompt: Prompt) -> str:
    """What the user of a prompt without audio wrote: `metadata["text"]`. Raises DataError when there is none."""
    text = prompt.metadata.get("text")
    if not isinstance(text, str) or not text.strip():
        raise DataError(
            f"prompt {prompt.id}: audio is empty and metadata.text is {text!r}; name a clip, or the text to answer"
        )
    return text


def refuse_dialogue(prompt: Prompt, does: str) -> None:
    """Raises DataError for a turn of a dialogue. `does`: what the backbone does instead."""
    if is_dialogue(prompt.metadata):
        raise DataError(
            f"prompt {prompt.id}: metadata.said makes it a turn of a dialogue, and this backbone only {does}; take a "
            "backbone that chats, or take the prompt out of the manifest"
        )
