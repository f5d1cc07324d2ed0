"""Word error rate of a whole test set, its three kinds of error reported apart."""

from collections.abc import Iterable

from rewards.asr.errors import WordErrors, word_errors


def corpus_wer(pairs: Iterable[tuple[str, str]], language: str) -> WordErrors:
    """Totals over (reference, hypothesis) pairs; their `.wer` is all errors over all reference words.

    Not a mean of per-utterance rates, in which a short clip would weigh as much as a long one.
    """
    return total(word_errors(reference, hypothesis, language) for reference, hypothesis in pairs)


def total(errors: Iterable[WordErrors]) -> WordErrors:
    """The sum of each count."""
    each = list(errors)
    return WordErrors(
        substitutions=sum(e.substitutions for e in each),
        deletions=sum(e.deletions for e in each),
        insertions=sum(e.insertions for e in each),
        reference_words=sum(e.reference_words for e in each),
    )
