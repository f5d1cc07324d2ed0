"""A backbone that speaks: text and an instruction in, codec tokens out. Encoder and adaptor are left aside.

What it speaks with stands in `speech.json` beside the weights, so that a checkpoint cannot be served, trained or
decoded with another codec than it has learnt.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from policies.adapter import PolicyAdapter, refuse_dialogue
from policies.batch import EncodedPrompt, PolicyBatch
from policies.codec.layout import CodecError
from policies.codec_lm import CodecLMAdapter
from policies.orpheus import FRAME_CODES, OrpheusAdapter
from policies.qwen3_asr import Qwen3ASRAdapter
from policies.token_rule import Band, TokenRule
from policies.tokenizer import audio_token_ids
from rlhf_platform.errors import DataError, RecipeError
from rlhf_platform.types import Prompt

FILE = "speech.json"
_BEFORE, _BETWEEN = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n<|audio_start|>"


@dataclass(frozen=True)
class SpeechLayout:
    """What a checkpoint speaks with."""

    codec: str
    """Its name in `policies.codec.load`."""
    codec_path: str | None
    codebooks: tuple[int, ...]
    """Entries of each codebook of a frame, in order."""
    frame_rate: float
    """Frames per second."""
    instructions: str
    """`none`: the prompt is the text. `global`: an instruction goes before it. `inline`: the text has tags, too."""
    shortest: float
    """Seconds of speech per character of text, at least: no end token before that."""
    longest: float
    """At most: a longer answer is cut."""
    characters: str | None = None
    """All that occur in the texts that it has learnt from; None: any will do."""

    def write(self, folder: Path) -> None:
        (folder / FILE).write_text(json.dumps(asdict(self), indent=1) + "\n", "utf-8")

    @classmethod
    def read(cls, folder: Path | str) -> "SpeechLayout | None":
        """That of a checkpoint; None when it does not speak."""
        file = Path(folder, FILE)
        if not file.is_file():
            return None
        values = json.loads(file.read_text("utf-8"))
        return cls(**values | {"codebooks": tuple(values["codebooks"])})


class Speaking(PolicyAdapter):
    """What speaking changes in a layout; mixed into its adapter, before it."""

    path: str

    @cached_property
    def layout(self) -> SpeechLayout:
        found = SpeechLayout.read(self.path)
        assert found is not None, "load_adapter asks first"
        return found

    @cached_property
    def _codebooks(self) -> tuple[tuple[int, ...], ...]:
        slots, sizes = audio_token_ids(self.tokenizer), self.layout.codebooks
        if len(slots) < sum(sizes):
            raise RecipeError(
                f"speech.codec is {self.layout.codec}: its codebooks have {' + '.join(map(str, sizes))} entries, the "
                f"vocabulary of {self.path} has {len(slots)} codec tokens; raise backbone.tiny.audio_slots to "
                f"{sum(sizes)}, or take a codec that fits"
            )
        bounds = [sum(sizes[:place]) for place in range(len(sizes) + 1)]
        return tuple(slots[start:end] for start, end in pairwise(bounds))

    @property
    def rule(self) -> TokenRule:
        return TokenRule(self._codebooks, self.end_token_ids)

    @cached_property
    def completion_token_ids(self) -> tuple[int, ...]:
        codes = [token for codebook in self._codebooks for token in codebook]
        return tuple(sorted({*codes, *self.end_token_ids}))

    def completion_text(self, tokens: Sequence[int]) -> str:
        return ""

    def codec_indices(self, tokens: Sequence[int]) -> list[int]:
        """The codec indices in a completion, end token left aside. Raises CodecError for a token that is none."""
        ends, index_of = self.end_token_ids, self._index_of
        spoken = [token for token in tokens if token not in ends]
        for place, token in enumerate(spoken):
            if token not in index_of:
                raise CodecError(f"token {place} is {token}, no codec token: it cannot be decoded")
        return [index_of[token] for token in spoken]

    @cached_property
    def _index_of(self) -> dict[int, int]:
        codes = [token for codebook in self._codebooks for token in codebook]
        return {token: index for index, token in enumerate(codes)}

    def band(self, prompt: Prompt) -> Band:
        frames = [bound * len(prompt.reference) * self.layout.frame_rate for bound in self._bounds]
        places = len(self.layout.codebooks)
        return Band(int(frames[0]) * places, (int(frames[1]) + 1) * places + 1)

    @property
    def _bounds(self) -> tuple[float, float]:
        return self.layout.shortest, self.layout.longest

    def said_text(self, prompt: Prompt) -> str:
        """The text to speak, with tags where the layout has them. Raises DataError for characters that the checkpoint
        has never met, and for an empty text."""
        strange = sorted(set(prompt.reference) - set(self.layout.characters or prompt.reference))
        if strange:
            raise DataError(
                f"prompt {prompt.id}: text {prompt.reference!r} has {' '.join(map(repr, strange))}, which occurs in no "
                f"text that {self.path} has learnt from; spell it otherwise, or train on such texts"
            )
        if not prompt.reference.strip():
            raise DataError(f"prompt {prompt.id}: text is empty; there is nothing to speak")
        inline = self.layout.instructions == "inline"
        return str(prompt.metadata.get("inline") or prompt.reference) if inline else prompt.reference

    def spoken_text(self, prompt: Prompt) -> str:
        """What the prompt says: instruction and text, as the layout has them. Raises as `said_text`."""
        wanted = self.layout.instructions != "none"
        instruction = str(prompt.metadata.get("instruction", "")) if wanted else ""
        return f"{instruction}\n{self.said_text(prompt)}"

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        refuse_dialogue(prompt, "speaks")
        return EncodedPrompt(self.opened(self.spoken_text(prompt)), end_from=self.band(prompt).least)

    def opened(self, text: str) -> tuple[int, ...]:
        """The turn that asks for `text`, and the speech opened."""
        before, between = self._turns
        return (*before, *self.pieces(text), *between)

    @cached_property
    def _turns(self) -> tuple[list[int], list[int]]:
        return self.tokenizer.encode(_BEFORE), self.tokenizer.encode(_BETWEEN)

    def vllm_prompt(self, prompt: Prompt) -> dict[str, Any]:
        return {"prompt_token_ids": list(self.encode(prompt).token_ids)}

    def target(self, prompt: Prompt) -> tuple[int, ...]:
        """The codec tokens of `metadata["codec"]`, codec indices frame by frame, and the end token.

        Raises DataError when they are missing or none of this codec's.
        """
        indices = prompt.metadata.get("codec")
        if not isinstance(indices, list | tuple) or not indices:
            raise DataError(f"prompt {prompt.id}: metadata has no list of codec indices named codec; encode its clip")
        places = len(self._codebooks)
        offsets = [sum(self.layout.codebooks[:place]) for place in range(places)]
        tokens = []
        for step, index in enumerate(indices):
            place = step % places
            entry = index - offsets[place] if type(index) is int else -1
            if not 0 <= entry < len(self._codebooks[place]):
                low, high = offsets[place], offsets[place] + len(self._codebooks[place]) - 1
                raise DataError(
                    f"prompt {prompt.id}: metadata.codec holds {index!r} at place {step}: allowed {low} to {high}, "
                    f"codebook {place} of {self.layout.codec}"
                )
            tokens.append(self._codebooks[place][entry])
        if len(indices) % places:
            raise DataError(f"prompt {prompt.id}: metadata.codec ends within a frame of {places} indices")
        return (*tokens, self.end_token_ids[-1])

    def silence(self) -> tuple[Tensor, Tensor] | None:
        return None

    def audio_states(self, model: PreTrainedModel, features: Tensor, mask: Tensor) -> list[Tensor]:
        raise NotImplementedError(f"{type(self).__name__} hears no audio")

    def model_inputs(self, batch: PolicyBatch, labels: Tensor) -> dict[str, Tensor]:
        return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": labels}

    def save(self, model: PreTrainedModel, path: Path) -> None:
        super().save(model, path)  # type: ignore[safe-super]  # that of the layout which this is mixed into
        self.layout.write(path)


class SpeakingQwen3ASR(Speaking, Qwen3ASRAdapter):
    """The shared backbone without its encoder: a Qwen3 decoder over text and codec tokens."""

    has_mtp = False

    def load_model(self, dtype: torch.dtype) -> PreTrainedModel:
        model = super().load_model(dtype)
        for name, parameter in model.named_parameters():
            if self.is_encoder(name) or self.is_adaptor(name):
                parameter.requires_grad_(False)
        return model

    def hidden_states(self, model: PreTrainedModel, batch: PolicyBatch, clips: Sequence[Tensor]) -> Tensor:
        decoder = model.model.language_model
        return decoder(batch.input_ids, **batch.seen_by(decoder.dtype), use_cache=False).last_hidden_state


class SpeakingCodecLM(Speaking, CodecLMAdapter):
    """A decoder language model over codec tokens (Llama, Qwen)."""


class SpeakingOrpheus(Speaking, OrpheusAdapter):
    """Orpheus-TTS with SNAC, of whose codes it writes seven a frame."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(path)
        codec, codes = self.layout.codec, len(self.layout.codebooks)
        if codec != "snac" or codes != FRAME_CODES:
            raise RecipeError(
                f"speech.codec is {codec} with {codes} codes a frame: Orpheus has learnt {FRAME_CODES} a frame of SNAC "
                "at 24 kHz; set speech.codec=snac and speech.codec_path to its checkpoint"
            )
        if self.layout.instructions == "global":
            raise RecipeError(
                "speech.instructions is global: Orpheus is told how to speak by tags in the text, such as <laugh>, "
                "and by nothing before it; set it to inline or none"
            )

    def spoken_text(self, prompt: Prompt) -> str:
        return self.by_voice(prompt, self.said_text(prompt))

    def opened(self, text: str) -> tuple[int, ...]:
        return self.turns(text)


SPEAKING: dict[str, type[Speaking]] = {
    "qwen3_asr": SpeakingQwen3ASR,
    "codec_lm": SpeakingCodecLM,
    "orpheus": SpeakingOrpheus,
}
"""By `backbone.adapter`."""
