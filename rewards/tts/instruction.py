"""Whether it was spoken as asked, measured in the sound: WORLD's measures to train on, Praat's to evaluate by."""

from math import exp
from typing import Any

from rewards.tts.sound import speech_of
from rewards.types import RewardInput
from rlhf_platform.data.prosody import SCALES, Norms, Prosody, Scale, discretise, measure, places


def instruction_match(sample: RewardInput) -> dict[str, float]:
    """1 or 0 for each attribute of `metadata["asked"]` (rate, pitch, energy, pause, ending), by WORLD's measures.

    `accuracy` is their mean, and `graded` the mean of exp(-d), in [0, 1], smoother: d is how far the measured value is
    from the class that was asked for, in units of the bound between classes; 0 inside it. Where nothing is voiced,
    pitch and ending are wrong, and 0. Ours, after the discretised prosody of StepAudio 2.5 (2605.23463). Raises
    `ValueError` for silence, for less than 0.1 s, without sound, and for a row whose `asked` or `norms` is missing or
    not of the form that docs/speech_data.md gives.
    """
    return _match(sample, measure(speech_of(sample), sample.reference, sample.language))


def instruction_match_praat(sample: RewardInput) -> dict[str, float]:
    """The same by Praat's measures, for evaluation: what trained on WORLD's is not judged by them. Errors as there."""
    from rlhf_platform.data import prosody_praat

    return _match(sample, prosody_praat.measure(speech_of(sample), sample.reference, sample.language))


def _match(sample: RewardInput, prosody: Prosody) -> dict[str, float]:
    asked, norms = _asked(sample), _norms(sample)
    found, where = discretise(prosody, norms), places(prosody, norms)
    right = {name: float(found[name] == kind) for name, kind in asked.items()}
    near = {
        name: exp(-_distance(where[name], kind, SCALES[name])) if found[name] in SCALES[name].classes else 0.0
        for name, kind in asked.items()
    }
    return {**right, "accuracy": sum(right.values()) / len(right), "graded": sum(near.values()) / len(near)}


def _distance(place: float, kind: str, scale: Scale) -> float:
    """From `place` to the nearest bound of the class, in units of that bound's own distance from 0."""
    at = scale.classes.index(kind)
    below = (scale.bounds[at - 1] - place) / abs(scale.bounds[at - 1]) if at > 0 else 0.0
    above = (place - scale.bounds[at]) / abs(scale.bounds[at]) if at < len(scale.bounds) else 0.0
    return max(below, above, 0.0)


def _asked(sample: RewardInput) -> dict[str, str]:
    asked: Any = sample.metadata.get("asked")
    known = isinstance(asked, dict) and all(
        name in SCALES and kind in SCALES[name].classes for name, kind in asked.items()
    )
    if not asked or not known:
        allowed = "; ".join(f"{name}: {', '.join(scale.classes)}" for name, scale in SCALES.items())
        raise ValueError(f"metadata.asked of {sample.prompt_id!r} is {asked!r}: a class by name is needed ({allowed})")
    return dict(asked)


def _norms(sample: RewardInput) -> Norms:
    norms: Any = sample.metadata.get("norms")
    try:
        return Norms(**norms)
    except TypeError:
        raise ValueError(
            f"metadata.norms of {sample.prompt_id!r} is {norms!r}: the speaker's rate, f0 and energy are needed, "
            "as `rlhf_platform.data.prosody.norms_of` gives them"
        ) from None
