"""How long it takes, and where it pauses, against the prompt's recording."""

from functools import lru_cache

from rewards.tts.sound import audible, recording, reference_of, speech_of
from rewards.types import RewardInput
from rlhf_platform.data.audio import SAMPLE_RATE
from rlhf_platform.data.prosody import HOP, frame_levels, inner_silences, speech_frames
from rlhf_platform.types import Waveform


def duration_band(sample: RewardInput, *, slack: float = 0.0) -> float:
    """-|len - T| / T beyond `slack`, in [-1, 0]: 0 while within the band, -1 from twice the length on.

    T is the length of the prompt's recording, seconds, ends included. Against slow and endless speech. Raises
    `ValueError` without sound, for a row without `duration`, and for a negative slack.
    """
    if not slack >= 0.0:
        raise ValueError(f"slack {slack:g}: at least 0 is needed")
    if not sample.duration > 0.0:
        raise ValueError(f"prompt {sample.prompt_id!r} has no duration: the manifest row needs it, in seconds")
    seconds = len(speech_of(sample)) / SAMPLE_RATE
    return max(-1.0, min(0.0, slack - abs(seconds - sample.duration) / sample.duration))


def pause_match(sample: RewardInput, *, tolerance: float = 0.15) -> dict[str, float]:
    """`f1` of pauses that match one of the recording's, in [0, 1], 1 where neither has any; and `pauses`, how many.

    A pause is an inner silence over 0.15 s. Two match, one with one, when the shares of speech before them differ by
    `tolerance` at most, so that pace makes no difference. The pause-pattern term of Tencent (2511.21270), by place
    instead of by word. Raises `ValueError` for silence, for less than 0.1 s, without sound, without a recording.
    """
    own, other = _places(audible(sample)), list(_places_of(reference_of(sample)))
    for place in own:
        near = min(other, key=lambda each: abs(each - place), default=None)
        if near is not None and abs(near - place) <= tolerance:
            other.remove(near)
    total = len(own) + len(_places_of(sample.audio))
    matched = len(_places_of(sample.audio)) - len(other)
    return {"f1": 2 * matched / total if total else 1.0, "pauses": float(len(own))}


@lru_cache(maxsize=4096)
def _places_of(path: str) -> tuple[float, ...]:
    return _places(recording(path))


def _places(samples: Waveform) -> tuple[float, ...]:
    """Of each pause, the share of the time of speech that is before it."""
    spoken = speech_frames(frame_levels(samples))
    at, pauses = spoken.nonzero()[0] * HOP, inner_silences(spoken)
    start, speech = at[0], at[-1] - at[0] - sum(end - begin for begin, end in pauses)
    places, silent = [], 0.0
    for begin, end in pauses:
        places.append(float((begin - start - silent) / speech))
        silent += end - begin
    return tuple(places)
