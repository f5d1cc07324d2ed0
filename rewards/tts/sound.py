"""The sound of a sample and of its reference, as every reward of `rewards.tts` gets them."""

from functools import lru_cache

from rewards.scorers.sound import check_sound
from rewards.types import RewardInput
from rlhf_platform.data.audio import load_audio
from rlhf_platform.types import Waveform


def speech_of(sample: RewardInput) -> Waveform:
    """What the completion sounds like, at 16 kHz. Raises `ValueError` for a sample that has no sound."""
    if sample.speech is None:
        raise ValueError(
            f"sample of {sample.prompt_id!r} has no sound: this reward needs speech, as of a policy that writes codec "
            "tokens, or `speech` given by hand"
        )
    return sample.speech


def audible(sample: RewardInput) -> Waveform:
    """The same. Raises `ValueError` for silence and for less than 0.1 s too."""
    speech = speech_of(sample)
    check_sound(speech, f"the sound of {sample.prompt_id!r}")
    return speech


def reference_of(sample: RewardInput) -> str:
    """The path of the prompt's recording. Raises `ValueError` for a prompt that has none."""
    if not sample.audio:
        raise ValueError(f"prompt {sample.prompt_id!r} has no recording to compare with: its manifest row needs one")
    return sample.audio


@lru_cache(maxsize=512)
def recording(path: str) -> Waveform:
    """The samples of a reference recording, decoded once per path.

    Raises `DataError` as `load_audio`, `ValueError` for one that is silent or shorter than 0.1 s.
    """
    samples = load_audio(path)
    check_sound(samples, f"reference {path}")
    return samples
