"""Phoneme error by hama: what its CTC recogniser hears against what its G2P reads in the text.

No language model is in it, so that it hears what was said and not what is likely: another family than Whisper.
"""

from rewards.scorers.packages import require
from rewards.scorers.sound import fault
from rlhf_platform.data.phonemes import align
from rlhf_platform.types import Waveform


def phoneme_error(samples: Waveform, text: str) -> float:
    """Phoneme edits (Levenshtein) per phoneme of an English text, at least 0; over 1 where much is inserted.

    Silence and what is shorter than 0.1 s has the error 1: nothing was said. Raises `ValueError` for a text with a
    digit or without a letter, `RecipeError` when hama is not installed.
    """
    require("hama")
    error = align(samples, text).error
    return 1.0 if fault(samples) else error
