"""One text normaliser for rewards and evaluation, so that what is trained is what is measured.

Results of two versions are not comparable: raise `NORMALIZER_VERSION` with every change of an output.
"""

import unicodedata

NORMALIZER_VERSION = "1"
"""Recorded beside every error rate."""

CHARACTER_LANGUAGES = frozenset({"zh", "yue", "ja", "ko", "th", "lo", "my", "km"})
"""Written without spaces between words, or, for Korean, with spaces that vary: scored by character."""

_DOTLESS_LANGUAGES = frozenset({"tr", "az"})
_APOSTROPHES = dict.fromkeys(map(ord, "\u2018\u2019\u02bc\uff07"), "'")
_ZERO_WIDTH_SPACE = "\u200b"


def normalize(text: str, language: str) -> str:
    """`text` as it is scored: NFKC, case folded, punctuation and symbols to spaces, whitespace collapsed.

    Digits and apostrophes inside words stay, hyphens split. In `CHARACTER_LANGUAGES` every character stands
    alone, so that word error is character error. `language` is an ISO 639 code; a region (`zh-TW`) is
    ignored. Idempotent, and defined for every string.
    """
    code = language.replace("_", "-").split("-")[0].lower()
    by_character = code in CHARACTER_LANGUAGES
    folded = _fold(_fold(text, code), code)  # one pass leaves a few marks in an order that a second would change
    kept = _keep(folded, apostrophes=not by_character)
    return " ".join(_characters(kept) if by_character else kept.split())


def words(text: str, language: str) -> list[str]:
    """What word error rate counts: the words of `normalize`, characters in `CHARACTER_LANGUAGES`."""
    return normalize(text, language).split()


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
