"""Timestamps, where the policy writes them and the manifest has them."""

import re
from dataclasses import dataclass
from typing import Any

from rewards.asr.errors import aligned
from rewards.types import RewardInput
from rlhf_platform.data.text import PLAIN, words

_TIME = re.compile(r"<\|(\d{1,6}(?:\.\d{1,6})?)\|>")


@dataclass(frozen=True)
class _Segment:
    """Words between two times, seconds. A time that the text lacks is None."""

    start: float | None
    end: float | None
    words: list[str]


def timing_reward(sample: RewardInput, *, collar: float = 0.2, normalizer: str = PLAIN) -> float:
    """Share of the completion's right words that are in a segment timed right, in [0, 1].

    The completion carries times in seconds as Whisper does (2212.04356), `<|0.00|> hello world<|1.20|>`: around each
    word, or around segments of several. They are taken out before words are compared. A segment is timed right when
    its start is within `collar` seconds of the start of the reference word that WER's alignment pairs with its first
    word, and its end likewise of the end of that of its last. Words outside a pair of times are timed wrong; with no
    right word the reward is 0, without words on both sides 1.

    The reference is `metadata["words"]`: a list of `{"word": "hello", "start": 0.1, "end": 0.5}`. Raises `ValueError`
    when it is missing or not of this form, or `collar` is negative.
    """
    if not collar >= 0.0:
        raise ValueError(f"collar {collar:g} s: at least 0 is needed")
    timed = _reference(sample.metadata.get("words"), sample.language, normalizer)
    segments = _segments(sample.text, sample.language, normalizer)
    reference, hypothesis = [word for word, _, _ in timed], [word for segment in segments for word in segment.words]
    if not reference and not hypothesis:
        return 1.0
    partner = {j: i for i, j in aligned(reference, hypothesis)}
    right = on_time = place = 0
    for segment in segments:
        places = range(place, place := place + len(segment.words))
        hits = sum(j in partner and reference[partner[j]] == hypothesis[j] for j in places)
        right += hits
        first, last = partner.get(places[0]), partner.get(places[-1])
        if first is not None and last is not None:
            starts, ends = timed[first][1], timed[last][2]
            on_time += hits * (_near(segment.start, starts, collar) and _near(segment.end, ends, collar))
    return on_time / right if right else 0.0


def without_times(text: str) -> str:
    """The text without its `<|1.20|>`; what is on both sides is not joined."""
    return " ".join(_TIME.sub(" ", text).split())


def _near(time: float | None, reference: float, collar: float) -> bool:
    # A hair more, so that 1.2 - 1.0 is within a collar of 0.2.
    return time is not None and abs(time - reference) <= collar + 1e-9


def _segments(text: str, language: str, normalizer: str) -> list[_Segment]:
    """The stretches of text between times, in order."""
    parts = _TIME.split(text)  # text, time, text, time, ..., text
    times = [None, *map(float, parts[1::2]), None]
    found = [
        _Segment(start, end, words(part, language, normalizer))
        for start, part, end in zip(times, parts[0::2], times[1:], strict=False)
    ]
    return [segment for segment in found if segment.words]


def _reference(given: Any, language: str, normalizer: str) -> list[tuple[str, float, float]]:
    """Each normalised word with its start and end, seconds."""
    if not isinstance(given, list | tuple):
        raise ValueError(f'metadata.words is {given!r}: a list of {{"word": ..., "start": ..., "end": ...}} is needed')
    timed: list[tuple[str, float, float]] = []
    for entry in given:
        try:
            word, start, end = str(entry["word"]), float(entry["start"]), float(entry["end"])
        except (TypeError, KeyError, ValueError):
            start, end = 1.0, 0.0
        if not 0.0 <= start <= end:
            raise ValueError(f"metadata.words has {entry!r}: a word with 0 <= start <= end in seconds is needed")
        timed += [(part, start, end) for part in words(word, language, normalizer)]
    return timed
