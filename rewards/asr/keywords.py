"""Whether the words that matter were heard: names, terms, hot words."""

from collections.abc import Sequence
from typing import Any

from rewards.asr.errors import Words, pair_of
from rewards.types import RewardInput
from rlhf_platform.data.text import PLAIN, reference_words


def keyword_rates(
    sample: RewardInput, *, keywords: Sequence[str] | None = None, normalizer: str = PLAIN
) -> dict[str, float]:
    """`precision` and `recall` of the keywords in the completion, each in [0, 1] (FunAudio-ASR, 2509.18569).

    `keywords`: phrases of one or more words; those of the row, `metadata["keywords"]`, if not given. An occurrence
    counts once, and no more are right than the reference has, so repeating a keyword lowers precision. A rate with
    nothing to divide by is 1 when the other text has none either, else 0: a list may hold phrases that were not said.
    Raises `ValueError` when there are no keywords, or one without a letter or digit.
    """
    given = sample.metadata.get("keywords") if keywords is None else keywords
    phrases = _phrases(given, sample.language, normalizer)
    reference, hypothesis = pair_of(sample, normalizer)
    said = [_count(phrase, reference) for phrase in phrases]
    written = [_count(phrase, hypothesis) for phrase in phrases]
    right = sum(map(min, said, written))
    return {"precision": _rate(right, sum(written), sum(said)), "recall": _rate(right, sum(said), sum(written))}


def keyword_reward(sample: RewardInput, *, keywords: Sequence[str] | None = None, normalizer: str = PLAIN) -> float:
    """The mean of keyword precision and recall, in [0, 1]: the keyword term of FunAudio-ASR (2509.18569)."""
    rates = keyword_rates(sample, keywords=keywords, normalizer=normalizer)
    return (rates["precision"] + rates["recall"]) / 2


def _phrases(keywords: Any, language: str, normalizer: str) -> list[tuple[str, ...]]:
    """The normalised words of each keyword, each phrase once."""
    if not isinstance(keywords, list | tuple) or not keywords or not all(isinstance(word, str) for word in keywords):
        raise ValueError(
            f"keywords are {keywords!r}: a list of phrases is needed, as metadata.keywords of the manifest row "
            "or as the keyword `keywords`"
        )
    phrases = {keyword: reference_words(keyword, language, normalizer) for keyword in keywords}
    for keyword, phrase in phrases.items():
        if not phrase:
            raise ValueError(f"keyword {keyword!r} has nothing left after {normalizer}, so it cannot be found")
    return list(dict.fromkeys(phrases.values()))


def _count(phrase: Words, text: Words) -> int:
    """Occurrences from left to right that do not overlap."""
    found, place, length = 0, 0, len(phrase)
    while place + length <= len(text):
        hit = tuple(text[place : place + length]) == phrase
        found += hit
        place += length if hit else 1
    return found


def _rate(right: int, of: int, other: int) -> float:
    return right / of if of else float(other == 0)
