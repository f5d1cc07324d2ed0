"""What travels from a manifest row to a training batch. Plain frozen records; no torch, no Ray.

manifest row -> `Prompt` -> rollout -> `Sample` -> reward -> `ScoredSample` -> advantages -> learner.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import accumulate
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Waveform = npt.NDArray[np.float32]
"""Mono samples (n,) in [-1, 1] at the backbone's rate."""


class StopReason(StrEnum):
    """Why a completion ended."""

    EOS = "eos"
    """The policy wrote its end token."""
    LENGTH = "length"
    """It was cut at `rollout.max_new_tokens`; the text may be unfinished."""


@dataclass(frozen=True)
class Prompt:
    """One thing to answer: a clip to transcribe, with the reference that rewards compare against."""

    id: str
    audio: str
    """Path of the audio file; decoded by `rlhf_platform.data.audio.load_audio` and nothing else."""
    reference: str
    language: str
    """ISO 639-1 code."""
    speaker: str = ""
    duration: float = 0.0
    """Seconds."""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """One completion of one prompt, as the rollout engine made it."""

    prompt: Prompt
    tokens: tuple[int, ...]
    """Completion token ids, end token included when there is one."""
    logprobs: tuple[float, ...]
    """Behaviour log-prob of each token in nats, of the distribution it was sampled from (law 6)."""
    text: str
    stop_reason: StopReason
    weight_version: int
    """Version of the weights that generated it; 0 is the warm start."""


@dataclass(frozen=True)
class Sounds:
    """What N samples sound like: one buffer, in which each has its place."""

    buffer: Waveform
    """The samples in a row, 16 kHz."""
    ends: tuple[int, ...]
    """(N,) where each ends; those without sound have none of the buffer."""
    failures: Mapping[int, str]
    """Why a sample has no sound, by its number."""

    @classmethod
    def of(cls, waves: Sequence[Waveform | str]) -> Self:
        """From the waveform of each, or why it has none."""
        heard = [wave for wave in waves if not isinstance(wave, str)]
        buffer = np.concatenate(heard) if heard else np.zeros(0, np.float32)
        lengths = (0 if isinstance(wave, str) else len(wave) for wave in waves)
        return cls(buffer, tuple(accumulate(lengths)), {i: w for i, w in enumerate(waves) if isinstance(w, str)})

    def __len__(self) -> int:
        return len(self.ends)

    def wave(self, number: int) -> Waveform | None:
        """A view (n,) of the buffer; None where there is no sound."""
        if number in self.failures:
            return None
        return self.buffer[self.ends[number - 1] if number else 0 : self.ends[number]]


FAILURE_KINDS = (
    "timeout",
    "crashed",
    "raised",
    "not_a_number",
    "out_of_range",
    "wrong_shape",
    "unavailable",
    "undecodable",
    "abstained",
    "budget",
)
"""Why a reward may not have come out; docs/rewards.md says when each is meant."""


@dataclass(frozen=True)
class Scored:
    """A reward that came out: what is learnt from, and the numbers that it is made of."""

    value: float
    parts: Mapping[str, float]
    """The numbers that the functions answered: `term`, or `term.part` of a dict."""
    shaped: Mapping[str, float] = field(default_factory=dict)
    """What stands for each term in the combination, before its weight: after shape, gate and normalisation. Terms
    that nothing changes are left out."""


@dataclass(frozen=True)
class Failed:
    """A reward that did not come out (law 2). It is never turned into a number."""

    kind: str
    """One of `FAILURE_KINDS`."""
    message: str
    term: str = ""
    """The reward that failed, by its name in the recipe."""


Outcome = Scored | Failed


@dataclass(frozen=True)
class ScoredSample:
    """A sample with what the rewards said of it."""

    sample: Sample
    outcome: Outcome
