"""How long the user waits for the first word, how long the reply takes to speak, and how much of that is silence."""

import re

from rewards.scorers.sound import fault
from rewards.types import RewardInput
from rlhf_platform.data.audio import SAMPLE_RATE
from rlhf_platform.data.dialogue import split_reply
from rlhf_platform.data.prosody import frame_levels, inner_silences, speech_frames
from rlhf_platform.data.text import words
from rlhf_platform.types import StopReason

PACE = 2.5
"""Words per second of a calm speaker: 150 a minute."""
SHORT_PAUSE, LONG_PAUSE = 0.2, 0.5
"""Seconds that a speaker rests at a comma, and at the end of a sentence; ours, round numbers."""

_STOPS = ".?!…。！？"
_MARK = re.compile(r"([.,?!:;]+(?![A-Za-z0-9])|[…，、；：。！？]+)")
"""Not a mark between letters or digits, as in 3.50 or U.S."""


def latency(sample: RewardInput, *, most: int = 32) -> dict[str, float]:
    """`tokens` that are written before the first that is spoken, `words` of the reasoning trace, and `reward`.

    The trace counts with its marks; without a trace both are 0. A reward has no tokenizer, so `tokens` is the
    completion's tokens, less the end token, times the trace's share of its characters: exact in the mean of traces and
    replies that are cut into pieces alike. `reward` is -min(1, tokens / most), in [-1, 0], and -1 where nothing is ever
    spoken, so that silence is not fast. Raises `ValueError` for a text without `tokens`, and unless `most` >= 1.
    """
    if most < 1:
        raise ValueError(f"most {most}: at least 1 token is needed")
    if sample.text and not sample.tokens:
        raise ValueError(f"sample of {sample.prompt_id!r} has no tokens: latency counts them")
    trace, reply = split_reply(sample.text)
    written = len(sample.tokens) - (sample.stop_reason is StopReason.EOS)
    before = 0 if reply == sample.text.strip() else len(sample.text) - len(reply)
    tokens = max(0, written) * before / max(1, len(sample.text))
    spoken = bool(words(reply, sample.language))
    return {
        "tokens": tokens,
        "words": float(len(words(trace, sample.language))),
        "reward": -min(1.0, tokens / most) if spoken else -1.0,
    }


def reasoning_length(sample: RewardInput, *, most: int = 16) -> dict[str, float]:
    """`words` of the reasoning trace, `over`, how many of them are beyond `most`, and `reward`, -over / most, 0 down.

    A trace that is never closed counts whole. Raises `ValueError` unless `most` >= 1.
    """
    if most < 1:
        raise ValueError(f"most {most}: at least 1 word is needed")
    found = len(words(split_reply(sample.text)[0], sample.language))
    over = max(0, found - most)
    return {"words": float(found), "over": float(over), "reward": -over / most}


def answer_seconds(sample: RewardInput, *, most: float = 6.0, pace: float = PACE) -> dict[str, float]:
    """`seconds` that the reply takes to speak, `over`, those beyond `most`, and `reward`, -over / most, 0 down.

    Measured where there is sound; else words of the reply, without its trace, at `pace` words per second (characters,
    in languages that are scored by character). Raises `ValueError` unless both are above 0.
    """
    if not (most > 0.0 and pace > 0.0):
        raise ValueError(f"most {most:g} and pace {pace:g}: more than 0 is needed")
    if sample.speech is not None:
        seconds = len(sample.speech) / SAMPLE_RATE
    else:
        seconds = len(words(split_reply(sample.text)[1], sample.language)) / pace
    over = max(0.0, seconds - most)
    return {"seconds": seconds, "over": over, "reward": -over / most}


def pauses(sample: RewardInput, *, most: float = 0.3, pace: float = PACE) -> dict[str, float]:
    """`share` of the reply that is silence, `pauses`, how many are in it, and `reward`, 0 while the share is within
    `most` and -1 where all is silence.

    Where there is sound: all that is not speech, the ends included, and inner silences of 0.15 s at least; sound too
    soft or short to hold speech is all silence. Else as punctuation has it, which is coarse: 0.2 s at a comma, colon or
    semicolon and 0.5 s at the end of a sentence, between words at `pace` words per second; a reply without a word is
    all silence. Raises `ValueError` unless 0 <= most < 1 and `pace` is above 0.
    """
    if not (0.0 <= most < 1.0 and pace > 0.0):
        raise ValueError(f"most {most:g} and pace {pace:g}: 0 <= most < 1 and a pace above 0 are needed")
    share, count = _heard(sample) if sample.speech is not None else _written(sample, pace)
    return {"share": share, "pauses": float(count), "reward": -max(0.0, share - most) / (1.0 - most)}


def _heard(sample: RewardInput) -> tuple[float, int]:
    assert sample.speech is not None
    if fault(sample.speech):
        return 1.0, 0
    spoken = speech_frames(frame_levels(sample.speech))
    return 1.0 - float(spoken.mean()), len(inner_silences(spoken))


def _written(sample: RewardInput, pace: float) -> tuple[float, int]:
    """Marks with words on both sides are pauses; several in a row are the longest of them."""
    seconds, rests, rest = 0.0, [], 0.0
    for part in _MARK.split(split_reply(sample.text)[1]):
        if _MARK.fullmatch(part):
            rest = max(rest, LONG_PAUSE if set(part) & set(_STOPS) else SHORT_PAUSE)
        elif found := words(part, sample.language):
            if seconds and rest:
                rests.append(rest)
            seconds, rest = seconds + len(found) / pace, 0.0
    return (sum(rests) / (seconds + sum(rests)) if seconds else 1.0), len(rests)
