"""What a reward function gets. Plain records that can be made by hand in a REPL; no torch, no Ray."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from rlhf_platform.types import Prompt, StopReason, Waveform


@dataclass(frozen=True)
class RewardInput:
    """One completion and what it is compared with. Only `prompt_id` and `text` have to be given."""

    prompt_id: str
    text: str
    """The completion as text, not normalised."""
    tokens: tuple[int, ...] = ()
    """Completion token ids, end token included when there is one."""
    logprobs: tuple[float, ...] = ()
    """Behaviour log-prob of each token, nats."""
    reference: str = ""
    language: str = "en"
    """ISO 639-1 code."""
    audio: str = ""
    """Path of the prompt's audio file: what was heard, or where the policy speaks, a recording of the text."""
    speaker: str = ""
    duration: float = 0.0
    """Of the prompt's audio, seconds; 0 where the manifest does not say."""
    stop_reason: StopReason = StopReason.EOS
    speech: Waveform | None = field(default=None, compare=False)
    """What the completion sounds like, 16 kHz; None where the policy writes text."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """The manifest row's own fields. Shared by all samples of a prompt: read it, do not change it."""

    @classmethod
    def of(cls, prompt: Prompt, text: str) -> Self:
        """A text for a prompt."""
        return cls(
            prompt_id=prompt.id,
            text=text,
            reference=prompt.reference,
            language=prompt.language,
            audio=prompt.audio,
            speaker=prompt.speaker,
            duration=prompt.duration,
            metadata=prompt.metadata,
        )
