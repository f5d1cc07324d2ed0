"""Text that nobody said: inserted runs, loops, words on silence. What a recogniser under WER alone learns to risk."""

from collections import Counter
from functools import lru_cache

import numpy as np
from rapidfuzz.distance import Levenshtein

from rewards.asr.errors import Words, pair_of
from rewards.types import RewardInput
from rlhf_platform.data.audio import load_audio
from rlhf_platform.data.text import PLAIN

SILENCE = -60.0
"""dBFS. A peak below it is 33 steps of a 16-bit file: dither and hum, no speech."""


def insertion_rates(sample: RewardInput, *, normalizer: str = PLAIN) -> dict[str, float]:
    """`share` of the completion's words that are insertions, and the `longest` run of them over all its words.

    Each in [0, 1], 0 for an empty completion. The alignment is that of WER.
    """
    reference, hypothesis = pair_of(sample, normalizer)
    runs, written = _insertions(reference, hypothesis), max(len(hypothesis), 1)
    return {"share": sum(runs) / written, "longest": max(runs, default=0) / written}


def repetition(sample: RewardInput, *, max_period: int = 8, min_repeats: int = 3, normalizer: str = PLAIN) -> float:
    """Share of the completion's words that are in a loop, beyond what the reference repeats itself, in [0, 1].

    A loop is an n-gram of at most `max_period` words, `min_repeats` times or more in a row. Of each n-gram, the words
    of its repeats in the reference (two in a row suffice there) are not held against the completion. Raises
    `ValueError` unless `max_period` >= 1 and `min_repeats` >= 2.
    """
    if max_period < 1 or min_repeats < 2:
        raise ValueError(f"max_period {max_period} and min_repeats {min_repeats}: at least 1 and 2 are needed")
    reference, hypothesis = pair_of(sample, normalizer)
    return _looped(reference, hypothesis, max_period, min_repeats)


def silence_penalty(sample: RewardInput, *, below: float | None = SILENCE, normalizer: str = PLAIN) -> float:
    """-1 for words where there is no speech, else 0.

    There is none where the reference has no words, where `metadata["speech"]` is false, or where the peak of the
    prompt's audio is below `below` dBFS (None, or a sample without audio: not measured). Raises `DataError` for audio
    that cannot be read.
    """
    reference, hypothesis = pair_of(sample, normalizer)
    return -float(bool(hypothesis) and not _has_speech(sample, reference, below))


def hallucination_penalty(
    sample: RewardInput,
    *,
    max_period: int = 8,
    min_repeats: int = 3,
    max_run: int = 4,
    below: float | None = SILENCE,
    normalizer: str = PLAIN,
) -> float:
    """-1 on repeats and invention, else 0: the penalty of FunAudio-ASR (2509.18569).

    Repeats are any loop by `repetition`. Invention is text on silence by `silence_penalty`, or more than `max_run`
    inserted words in a row. (Translation, which the paper punishes too, is seen by `language_reward`.) Errors as there.
    """
    if max_run < 0:
        raise ValueError(f"max_run {max_run}: at least 0 is needed")
    reference, hypothesis = pair_of(sample, normalizer)
    invented = max(_insertions(reference, hypothesis), default=0) > max_run
    looped = repetition(sample, max_period=max_period, min_repeats=min_repeats, normalizer=normalizer) > 0
    return -1.0 if invented or looped else silence_penalty(sample, below=below, normalizer=normalizer)


@lru_cache(maxsize=4096)
def peak_level(path: str) -> float:
    """The largest sample of an audio file in dBFS: 0 for full scale, -inf for digital silence.

    Decoded once per path in a process. Raises `DataError` as `load_audio`.
    """
    with np.errstate(divide="ignore"):
        return float(20 * np.log10(np.abs(load_audio(path)).max()))


def _has_speech(sample: RewardInput, reference: Words, below: float | None) -> bool:
    if not reference or sample.metadata.get("speech") is False:
        return False
    return below is None or not sample.audio or peak_level(sample.audio) >= below


def _insertions(reference: Words, hypothesis: Words) -> list[int]:
    """Lengths, in words, of the runs of insertions."""
    blocks = Levenshtein.opcodes(reference, hypothesis)
    return [block.dest_end - block.dest_start for block in blocks if block.tag == "insert"]


def _looped(reference: Words, hypothesis: Words, max_period: int, min_repeats: int) -> float:
    said = _loops(reference, max_period, min_repeats) | _loops(reference, max_period, 2)
    excess = _loops(hypothesis, max_period, min_repeats) - said
    return excess.total() / max(len(hypothesis), 1)


def _loops(text: Words, max_period: int, min_repeats: int) -> Counter[tuple[str, ...]]:
    """Words inside loops by n-gram, read from left to right, the shortest period first.

    The n-gram is the smallest of its rotations: a loop is the same wherever it is entered.
    """
    found: Counter[tuple[str, ...]] = Counter()
    place = 0
    while place < len(text):
        for period in range(1, max_period + 1):
            end = place + period
            while end < len(text) and text[end] == text[end - period]:
                end += 1
            if end - place >= period * min_repeats:
                unit = tuple(text[place : place + period])
                found[min(unit[i:] + unit[:i] for i in range(period))] += end - place
                place = end
                break
        else:
            place += 1
    return found
