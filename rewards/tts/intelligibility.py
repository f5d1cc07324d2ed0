"""Whether the text was said: by hama's phonemes in training, by Whisper's transcript where it is only measured.

Two families of recognisers, so that what is trained to please one is measured by another. Silence is wrong
altogether for both; neither raises for what the policy said.
"""

from math import exp

from rapidfuzz.distance import Levenshtein

from rewards.scorers import whisper
from rewards.scorers.phonemes import phoneme_error
from rewards.tts.sound import speech_of
from rewards.types import RewardInput
from rlhf_platform.data.text import normalize

WHISPER = "whisper-1"
"""The normaliser of Whisper's own paper: it writes numbers as it likes, "7" where "seven" was said."""


def phonemes(sample: RewardInput) -> dict[str, float]:
    """`per`, phoneme edits per phoneme of the text (0 up), and `reward`, exp(-2.5 per), in (0, 1].

    The form is that of GLM-TTS and Inworld TTS-1 for CER and WER. Silence has the error 1. Raises `ValueError` for a
    text that is not spelt in letters, and without sound.
    """
    per = phoneme_error(speech_of(sample), sample.reference)
    return {"per": per, "reward": exp(-2.5 * per)}


def whisper_cer(samples: list[RewardInput], *, normalizer: str = WHISPER) -> list[dict[str, float]]:
    """`cer` of Whisper's transcript: character edits per character of the text, 0 up; and `exact`, 1 where it is 0.

    Both texts are normalised, the spaces between words count, as by jiwer; an empty text counts as one character.
    Silence has the transcript "", hence the error 1. Raises `ValueError` without sound.
    """
    heard = whisper.transcribe([speech_of(sample) for sample in samples])
    rates = [_cer(sample, text, normalizer) for sample, text in zip(samples, heard, strict=True)]
    return [{"cer": rate, "exact": float(rate == 0)} for rate in rates]


def _cer(sample: RewardInput, heard: str, normalizer: str) -> float:
    reference, hypothesis = (normalize(text, sample.language, normalizer) for text in (sample.reference, heard))
    return Levenshtein.distance(reference, hypothesis) / max(len(reference), 1)
