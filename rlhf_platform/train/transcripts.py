"""What the texts of a step are like, held against their references."""

from collections.abc import Sequence

from rewards.asr.errors import WordErrors, Words, count_errors
from rlhf_platform.data.evasive import is_evasive
from rlhf_platform.data.text import reference_words, words
from rlhf_platform.evaluation.wer import total
from rlhf_platform.train.spread import deviation, mean
from rlhf_platform.types import Sample

NGRAM = 4
"""Words of a run that counts as said again, as in seq-rep-4 (1908.04319): shorter ones recur in plain speech."""


def transcript_metrics(samples: Sequence[Sample]) -> dict[str, float]:
    """Word errors by kind, pace (words per second of the prompt's audio), and marks of a hacked reward.

    Words are those of `rlhf_platform.data.text`: characters in languages that are scored by character.
    """
    prompts = [s.prompt for s in samples]
    texts = [words(s.text, s.prompt.language) for s in samples]
    references = [reference_words(p.reference, p.language) for p in prompts]
    paces = [len(text) / p.duration for text, p in zip(texts, prompts, strict=True) if p.duration > 0]
    evasive = map(is_evasive, texts, references, [p.language for p in prompts])
    return {
        **error_rates(total(map(count_errors, references, texts))),
        "empty_rate": mean([not text for text in texts]),
        "repeated_ngram_rate": repeated_ngram_rate(texts, references),
        "evasive_rate": mean(list(evasive)),
        **({"words_per_second": mean(paces), "words_per_second_std": deviation(paces)} if paces else {}),
    }


def error_rates(errors: WordErrors) -> dict[str, float]:
    """Word errors per reference word, all and by kind, and (insertions - deletions) / (insertions + deletions).

    The rates add up to `sample_wer`. The balance is in [-1, 1]: -1 leaves words out, 1 makes them up, 0 without either.
    """
    insertions, deletions, spoken = errors.insertions, errors.deletions, errors.reference_words
    return {
        "sample_wer": errors.wer,
        "substitution_rate": WordErrors(errors.substitutions, 0, 0, spoken).wer,
        "deletion_rate": WordErrors(0, deletions, 0, spoken).wer,
        "insertion_rate": WordErrors(0, 0, insertions, spoken).wer,
        "insertion_deletion_balance": (insertions - deletions) / max(1, insertions + deletions),
    }


def repeated_ngram_rate(texts: Sequence[Words], references: Sequence[Words]) -> float:
    """Share of the n-grams of all texts that their own text had before, in [0, 1].

    That is seq-rep-n (1908.04319) over the whole step, less what the references repeat themselves.
    """
    pairs = zip(texts, references, strict=True)
    repeated = sum(max(0, _repeats(text) - _repeats(reference)) for text, reference in pairs)
    return repeated / max(1, sum(max(0, len(text) - NGRAM + 1) for text in texts))


def _repeats(text: Words) -> int:
    """N-grams that were there before."""
    ngrams = [tuple(text[i : i + NGRAM]) for i in range(len(text) - NGRAM + 1)]
    return len(ngrams) - len(set(ngrams))
