"""Prompts in which clips stand among the tokens of ChatML turns: one clip to transcribe, or the turns of a dialogue."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from itertools import count
from typing import Any, ClassVar

from policies.adapter import PolicyAdapter
from policies.batch import Clip, EncodedPrompt
from rlhf_platform.data.audio import load_audio
from rlhf_platform.data.dialogue import ASSISTANT, USER, Session, Turn, is_dialogue, session_of, written
from rlhf_platform.types import Prompt, Waveform

TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"

Segment = Sequence[int] | str
"""A part of a prompt: token ids, or the path of the clip that is heard there."""


class TurnsAdapter(PolicyAdapter):
    """ChatML turns; a clip has one placeholder per position that its audio takes.

    Token ids are put together from segments, for learner and engine alike: nothing is decoded and tokenised again, so
    that a reply which the policy wrote stands in the later prompts of its session as the ids that it sampled.
    """

    processor: Any
    mask_name: ClassVar[str]
    """What the processor and the model call the mask of the features."""
    heard: ClassVar[str] = "{audio}"
    """What a user's turn in a dialogue has for its clip, the `{number}`th of the prompt."""

    @abstractmethod
    def turns(self, prompt: Prompt) -> list[Segment]:
        """The segments of a prompt that is no dialogue."""

    def segments(self, prompt: Prompt) -> list[Segment]:
        """All that the decoder reads before the completion."""
        if is_dialogue(prompt.metadata):
            return self._dialogue(session_of(prompt.audio, prompt.metadata))
        return self.turns(prompt)

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        tokens: list[int] = []
        clips: list[Clip] = []
        for segment in self.segments(prompt):
            if isinstance(segment, str):
                positions, clip = self.featurised(segment, self.samples(segment))
                tokens += [self.placeholder] * positions
                clips.append(clip)
            else:
                tokens += segment
        return EncodedPrompt(tuple(tokens), tuple(clips))

    def vllm_prompt(self, prompt: Prompt) -> dict[str, Any]:
        tokens: list[int] = []
        audio: list[Waveform] = []
        for segment in self.segments(prompt):
            if isinstance(segment, str):
                tokens.append(self.placeholder)
                audio.append(self.samples(segment))
            else:
                tokens += segment
        return {"prompt_token_ids": tokens, **({"multi_modal_data": {"audio": audio}} if audio else {})}

    def target(self, prompt: Prompt) -> tuple[int, ...]:
        """The completion to learn: the transcript, or the reply with its reasoning trace, and the end token."""
        if not is_dialogue(prompt.metadata):
            return super().target(prompt)
        return self.transcript_tokens(written(prompt.metadata.get("reasoning", ""), prompt.reference))

    def samples(self, path: str) -> Waveform:
        """The clip as the processor is given it."""
        return load_audio(path, self.sample_rate)

    def featurised(self, path: str, samples: Waveform) -> tuple[int, Clip]:
        """How many positions the samples take, and their features. Each clip by itself: it depends on no other."""
        inputs = self.processor(
            text=[self._marked], audio=[samples], sampling_rate=self.sample_rate, return_tensors="pt"
        )
        positions = int((inputs["input_ids"] == self.placeholder).sum())
        seconds = len(samples) / self.sample_rate
        return positions, Clip(path, seconds, inputs["input_features"][0], inputs[self.mask_name][0].long())

    @cached_property
    def placeholder(self) -> int:
        """The token that stands where audio goes."""
        return int(self.tokenizer.convert_tokens_to_ids(self.processor.audio_token))

    @property
    def _marked(self) -> str:
        """The placeholder between the marks that audio stands in."""
        return f"{self.processor.audio_bos_token}{self.processor.audio_token}{self.processor.audio_eos_token}"

    def around(self, path: str, text: str) -> list[Segment]:
        """Control tokens and words of a layout, `{audio}` in them for the clip and its marks."""
        before, _, after = text.format(audio=self._marked).partition(self.processor.audio_token)
        return [self.tokenizer.encode(before), path, self.tokenizer.encode(after)]

    def spelt(self, before: str, text: str, after: str) -> list[Segment]:
        """A text, which cannot spell control tokens, between control tokens and words of the layout."""
        return [self.tokenizer.encode(before), self.pieces(text), self.tokenizer.encode(after)]

    def _dialogue(self, session: Session) -> list[Segment]:
        segments: list[Segment] = []
        if session.persona:
            segments += self.spelt(f"{TURN_START}system\n", session.persona, f"{TURN_END}\n")
        number = count(1)
        for turn in (*session.history, Turn(USER, session.said, session.audio)):
            if turn.role == ASSISTANT:
                segments += self._answered(turn)
            elif turn.audio:
                clip = self.heard.format(number=next(number), audio="{audio}")
                segments += self.around(turn.audio, f"{TURN_START}user\n{clip}{TURN_END}\n")
            else:
                segments += self.spelt(f"{TURN_START}user\n", turn.text, f"{TURN_END}\n")
        return [*segments, self._opening]

    @cached_property
    def _opening(self) -> list[int]:
        return self.tokenizer.encode(f"{TURN_START}assistant\n")

    def _answered(self, turn: Turn) -> list[Segment]:
        """The assistant's turn. One that was cut at its longest has no end token of its own, and gets one."""
        tokens = turn.tokens or self.transcript_tokens(written(turn.reasoning, turn.text))
        end = () if tokens[-1] in self.end_token_ids else self.transcript_tokens("")
        return [self._opening, tokens, end, self.tokenizer.encode("\n")]
