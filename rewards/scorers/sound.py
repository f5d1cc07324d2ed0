"""What counts as sound at all: the one rule by which no scorer takes silence for speech."""

from rlhf_platform.data.prosody import frame_levels
from rlhf_platform.types import Waveform


def fault(samples: Waveform) -> str:
    """Why samples cannot be speech, in words that go on from "the sound is"; empty when they can.

    Shorter than 0.1 s, or with the loudest 0.1 s below -50 dBFS: the bounds of `rlhf_platform.data.prosody`.
    """
    try:
        frame_levels(samples)
    except ValueError as error:
        return str(error)
    return ""


def check_sound(samples: Waveform, what: str = "the sound") -> None:
    """Raises `ValueError` for samples with a `fault`; the message starts with `what`."""
    if found := fault(samples):
        raise ValueError(f"{what} is {found}")
