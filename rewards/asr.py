"""Verifiable rewards for speech recognition."""

from dataclasses import dataclass
from math import inf

import jiwer

from rewards.types import RewardInput
from rlhf_platform.data.text import words


@dataclass(frozen=True)
class WordErrors:
    """Word edits that lead from a reference to a hypothesis, by the least number of edits (Levenshtein)."""

    substitutions: int
    deletions: int
    insertions: int
    reference_words: int

    @property
    def errors(self) -> int:
        """All edits."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def wer(self) -> float:
        """Edits per reference word, at least 0. Without reference words: 0 if no edits, else inf."""
        if self.reference_words == 0:
            return inf if self.errors else 0.0
        return self.errors / self.reference_words


def word_errors(reference: str, hypothesis: str, language: str) -> WordErrors:
    """The edits between the normalised words of two texts, counted by jiwer.

    `language`: ISO 639-1 code; it decides how `rlhf_platform.data.text` normalises and what a word is.
    """
    counted = jiwer.process_words(" ".join(words(reference, language)), " ".join(words(hypothesis, language)))
    return WordErrors(
        substitutions=counted.substitutions,
        deletions=counted.deletions,
        insertions=counted.insertions,
        reference_words=counted.hits + counted.substitutions + counted.deletions,
    )


def wer_reward(sample: RewardInput) -> float:
    """1 - min(WER, 1), in [0, 1]: the accuracy term of FunAudio-ASR (2509.18569), kept from falling below 0.

    With an empty reference (noise, silence): 1 when the hypothesis has no words either, else 0.
    """
    return 1.0 - min(word_errors(sample.reference, sample.text, sample.language).wer, 1.0)
