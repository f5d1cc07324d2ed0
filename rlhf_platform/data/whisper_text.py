"""The normaliser that Whisper's word error rates are measured with (2212.04356, appendix C), by `whisper-normalizer`.

The package is imported on first use: reading and checking a recipe needs none of it.
"""

import functools
from collections.abc import Callable

NOT_OF_WHISPER = (r"\bkinda\b", r"\bsorta\b", r"\bdunno\b", r"\bcause\b")
"""Contractions that the package expands and Whisper's own code does not; with them rates would not be Whisper's."""


def normalize(text: str, code: str, split_letters: bool) -> str:
    """`text` after Whisper's English normaliser if `code` is `en`, else after its basic one.

    `split_letters`: letters stand alone, as Whisper does for languages written without spaces. The basic normaliser
    turns combining marks into spaces, which takes vowel signs out of Indic scripts and Thai. Defined for every string:
    where the English one fails, on a number of more digits than Python converts (4,300), it is the basic one.
    """
    normalizer = _english() if code == "en" else _basic(split_letters)
    try:
        normalized = normalizer(text)
    except (ValueError, AssertionError):  # a policy that writes digits without end must not escape its reward
        normalized = _basic(split_letters)(text)
    return " ".join(normalized.split())


@functools.cache
def _english() -> Callable[[str], str]:
    from whisper_normalizer.english import EnglishTextNormalizer

    normalizer = EnglishTextNormalizer()
    for pattern in NOT_OF_WHISPER:
        normalizer.replacers.pop(pattern)
    return normalizer


@functools.cache
def _basic(split_letters: bool) -> Callable[[str], str]:
    from whisper_normalizer.basic import BasicTextNormalizer

    return BasicTextNormalizer(split_letters=split_letters)
