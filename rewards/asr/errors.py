"""Verifiable rewards for speech recognition: word, character and sentence errors (docs/asr_rewards.md).

A failed sample is masked (law 2), so no reward of `rewards.asr*` raises for what the policy wrote: only for what the
recipe or the manifest lacks. A policy cannot write itself out of the loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from rapidfuzz.distance import Levenshtein

from rewards.types import RewardInput
from rlhf_platform.data.text import PLAIN, by_character, reference_words, words

Words = Sequence[str]


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
    def hits(self) -> int:
        """Reference words that the hypothesis has."""
        return self.reference_words - self.substitutions - self.deletions

    @property
    def wer(self) -> float:
        """Edits per reference word, at least 0. Without reference words: 0 if no edits, else inf."""
        if self.reference_words == 0:
            return inf if self.errors else 0.0
        return self.errors / self.reference_words


def word_errors(reference: str, hypothesis: str, language: str, normalizer: str = PLAIN) -> WordErrors:
    """The edits between the normalised words of two texts, counted by rapidfuzz.

    `language`: ISO 639-1 code; it decides how `rlhf_platform.data.text` normalises and what a word is.
    `normalizer`: a name of `NORMALIZERS`; another raises `ValueError`.
    """
    return count_errors(reference_words(reference, language, normalizer), words(hypothesis, language, normalizer))


def count_errors(reference: Words, hypothesis: Words) -> WordErrors:
    """The edits between two lists of words."""
    kinds = [edit.tag for edit in Levenshtein.editops(reference, hypothesis)]
    return WordErrors(kinds.count("replace"), kinds.count("delete"), kinds.count("insert"), len(reference))


def aligned(reference: Words, hypothesis: Words) -> list[tuple[int, int]]:
    """Places (reference, hypothesis) of the words that stand for each other, equal or substituted, in order."""
    blocks = [block for block in Levenshtein.opcodes(reference, hypothesis) if block.tag in ("equal", "replace")]
    return [
        (block.src_start + i, block.dest_start + i) for block in blocks for i in range(block.src_end - block.src_start)
    ]


def pair_of(sample: RewardInput, normalizer: str) -> tuple[tuple[str, ...], list[str]]:
    """The normalised words of reference and completion."""
    reference = reference_words(sample.reference, sample.language, normalizer)
    return reference, words(sample.text, sample.language, normalizer)


def word_error_rate(sample: RewardInput, normalizer: str) -> float:
    """Edits per reference word, finite: an empty reference counts as one word."""
    reference, hypothesis = pair_of(sample, normalizer)
    return Levenshtein.distance(reference, hypothesis) / max(len(reference), 1)


def character_error_rate(sample: RewardInput, normalizer: str) -> float:
    """Edits per reference character, finite: an empty reference counts as one character.

    Characters are those of the normalised text, the spaces between its words included as by jiwer; where a word is
    one character (`CHARACTER_LANGUAGES`) it is the word error rate.
    """
    if by_character(sample.language):
        return word_error_rate(sample, normalizer)
    reference, hypothesis = map(" ".join, pair_of(sample, normalizer))
    return Levenshtein.distance(reference, hypothesis) / max(len(reference), 1)


def wer_reward(sample: RewardInput, *, normalizer: str = PLAIN) -> float:
    """1 - min(WER, 1), in [0, 1]: the accuracy term of FunAudio-ASR (2509.18569), kept from falling below 0.

    With an empty reference (noise, silence): 1 when the hypothesis has no words either, else 0.
    """
    return 1.0 - min(word_error_rate(sample, normalizer), 1.0)


def cer_reward(sample: RewardInput, *, normalizer: str = PLAIN) -> float:
    """1 - min(CER, 1), in [0, 1]: 1-CER of Tencent (2511.21270), kept from falling below 0."""
    return 1.0 - min(character_error_rate(sample, normalizer), 1.0)


def sentence_reward(sample: RewardInput, *, normalizer: str = PLAIN) -> float:
    """1 when no word is wrong, else 0."""
    reference, hypothesis = pair_of(sample, normalizer)
    return float(list(reference) == hypothesis)


def error_rates(sample: RewardInput, *, normalizer: str = PLAIN) -> dict[str, float]:
    """Rates by kind, each at least 0 and finite, for logging, for `part` and `shape`, or as penalties apart.

    `substitutions`, `deletions`, `insertions` and their sum `wer` are per reference word, `cer` per reference
    character. An empty reference counts as one word.
    """
    errors = word_errors(sample.reference, sample.text, sample.language, normalizer)
    counted = max(errors.reference_words, 1)
    return {
        "substitutions": errors.substitutions / counted,
        "deletions": errors.deletions / counted,
        "insertions": errors.insertions / counted,
        "wer": errors.errors / counted,
        "cer": character_error_rate(sample, normalizer),
    }


def length_reward(sample: RewardInput, *, low: float = 0.8, high: float = 1.25, normalizer: str = PLAIN) -> float:
    """1 while hypothesis words per reference word are in [low, high]; outside it falls linearly, in [0, 1].

    It is 0 for an empty hypothesis and from twice `high` on. With an empty reference: 1 when the hypothesis is empty
    too, else 0. Ours; the trapezoid bounds what deletions and endless text can gain elsewhere. Raises `ValueError`
    unless 0 < low <= 1 <= high.
    """
    if not 0.0 < low <= 1.0 <= high < inf:
        raise ValueError(f"low {low:g} and high {high:g}: 0 < low <= 1 <= high is needed")
    reference, hypothesis = pair_of(sample, normalizer)
    if not reference:
        return float(not hypothesis)
    ratio = len(hypothesis) / len(reference)
    return max(0.0, min(1.0, ratio / low, 2.0 - ratio / high))
