"""Text normalisers for rewards and evaluation, so that what is trained is what is measured.

Results of two normalisers, or of two versions of one, are not comparable: their names hold the version. Give one
another name with every change of an output.
"""

import functools
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping

from rlhf_platform.data import whisper_text

PLAIN = "plain-1"
"""The default normaliser."""

CHARACTER_LANGUAGES = frozenset({"zh", "yue", "ja", "ko", "th", "lo", "my", "km"})
"""Written without spaces between words, or, for Korean, with spaces that vary: scored by character."""

_DOTLESS_LANGUAGES = frozenset({"tr", "az"})
_APOSTROPHES = dict.fromkeys(map(ord, "\u2018\u2019\u02bc\uff07"), "'")
_ZERO_WIDTH_SPACE = "\u200b"
_ASCII_WORDS = re.compile(r"[a-z0-9]+(?:'[a-z0-9]+)*")
_REMEMBERED = 4096
"""References whose words are kept: some steps' worth, a few megabytes."""


def normalize(text: str, language: str, normalizer: str = PLAIN) -> str:
    """`text` as it is scored by one of `NORMALIZERS`.

    `language` is an ISO 639 code; a region (`zh-TW`) is ignored. Defined for every string; raises `ValueError` for an
    unknown normaliser.

    `plain-1`: NFKC, case folded, punctuation and symbols to spaces, whitespace collapsed. Digits and apostrophes
    inside words stay, hyphens split. In `CHARACTER_LANGUAGES` every character stands alone, so that word error is
    character error. Idempotent.

    `whisper-1`: `rlhf_platform.data.whisper_text`. Numbers, currencies, contractions, titles and spellings of English
    get one form; fillers and text in brackets go.
    """
    if normalizer not in NORMALIZERS:
        raise ValueError(f"normalizer {normalizer!r} is unknown; there are {', '.join(NORMALIZERS)}")
    return NORMALIZERS[normalizer](text, language_code(language))


def words(text: str, language: str, normalizer: str = PLAIN) -> list[str]:
    """What word error rate counts: the words of `normalize`, characters in `CHARACTER_LANGUAGES`."""
    if normalizer == PLAIN and text.isascii() and _is_spelt_plainly(language):
        return _ASCII_WORDS.findall(text.lower())
    return normalize(text, language, normalizer).split()


@functools.lru_cache(maxsize=_REMEMBERED)
def reference_words(reference: str, language: str, normalizer: str = PLAIN) -> tuple[str, ...]:
    """`words` of a text that many are compared with, remembered. A tuple, as all who ask get the same one."""
    return tuple(words(reference, language, normalizer))


def by_character(language: str) -> bool:
    """Whether a word of this language is one character."""
    return language_code(language) in CHARACTER_LANGUAGES


def joined(texts: Iterable[str], language: str) -> str:
    """One text of several that follow each other, blank ones left out: a space between two, or nothing where a word is
    one character."""
    parts = [text.strip() for text in texts]
    return ("" if by_character(language) else " ").join(part for part in parts if part)


@functools.lru_cache(maxsize=256)
def language_code(language: str) -> str:
    """A language's ISO 639 code without region, in small letters: `zh` for `zh-TW`."""
    return language.replace("_", "-").split("-")[0].lower()


@functools.lru_cache(maxsize=256)
def _is_spelt_plainly(language: str) -> bool:
    """Whether `_ASCII_WORDS` finds the words of any ASCII text, ten times as fast."""
    return language_code(language) not in CHARACTER_LANGUAGES | _DOTLESS_LANGUAGES


def _plain(text: str, code: str) -> str:
    split = code in CHARACTER_LANGUAGES
    folded = _fold(_fold(text, code), code)  # one pass leaves a few marks in an order that a second would change
    kept = _keep(folded, apostrophes=not split)
    return " ".join(_characters(kept) if split else kept.split())


def _whisper(text: str, code: str) -> str:
    return whisper_text.normalize(text, code, split_letters=code in CHARACTER_LANGUAGES)


NORMALIZERS: Mapping[str, Callable[[str, str], str]] = {PLAIN: _plain, "whisper-1": _whisper}
"""By versioned name: what turns a text of a language (code without region) into words with spaces between them."""


def _fold(text: str, code: str) -> str:
    visible = "".join(c for c in text if unicodedata.category(c) != "Cf" or c == _ZERO_WIDTH_SPACE)
    unified = unicodedata.normalize("NFKC", visible.translate(_APOSTROPHES))
    if code in _DOTLESS_LANGUAGES:
        unified = unified.replace("I", "ı").replace("İ", "i")
    return unicodedata.normalize("NFKC", unified.casefold())


def _keep(text: str, apostrophes: bool) -> str:
    """Letters, digits, the marks upon them and, if asked, apostrophes between them; else spaces."""
    kept: list[str] = []
    for character, following in zip(text, text[1:] + " ", strict=False):
        inside = bool(kept) and kept[-1] not in " '"
        joins = apostrophes and character == "'" and _is_word(following)
        keep = _is_word(character) or (inside and (joins or _is_mark(character)))
        kept.append(character if keep else " ")
    return "".join(kept)


def _characters(text: str) -> list[str]:
    """Each letter or digit with its marks."""
    characters: list[str] = []
    for character in text:
        if _is_mark(character):
            characters[-1] += character
        elif character != " ":
            characters.append(character)
    return characters


def _is_word(character: str) -> bool:
    return unicodedata.category(character)[0] in "LN"


def _is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] == "M"
