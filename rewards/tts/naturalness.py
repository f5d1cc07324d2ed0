"""Whether it sounds like speech, whatever it says: easily pleased, so only behind a gate on intelligibility."""

from rewards.scorers.mos import naturalness
from rewards.tts.sound import audible
from rewards.types import RewardInput


def mos(sample: RewardInput) -> dict[str, float]:
    """`mos`, the opinion score that DistillMOS predicts, 1 to 5, and `reward`, (mos - 1) / 4 as in Inworld TTS-1.

    Raises `ValueError` for silence, for less than 0.1 s, and without sound.
    """
    (score,) = naturalness([audible(sample)])
    return {"mos": score, "reward": (score - 1) / 4}
