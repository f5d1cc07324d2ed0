"""How the words are written down, where they are right: punctuation and capitals."""

import re
import unicodedata
from collections import Counter

from rewards.asr.errors import aligned
from rewards.types import RewardInput
from rlhf_platform.data.text import PLAIN, words

_SAME_MARK = str.maketrans("。｡．，、､،？؟！：；؛।", "...,,,,??!:;;.")
"""Marks of other scripts to the ASCII mark of the same office."""

_MARK = re.compile(r"([.,?!:;](?![A-Za-z0-9])|[…¿¡])")
"""Not a mark between letters or digits, as in 3.50 or U.S.: that is part of the word."""

_PIECE = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
"""A run of letters and digits, with the apostrophes inside it."""


def punctuation_reward(sample: RewardInput, *, normalizer: str = PLAIN) -> float:
    """F1 of the punctuation marks after words that stand for each other, in [0, 1]; 1 when neither text has any.

    Marks are . , ? ! : ; … ¿ ¡ and those of other scripts with the same office. A mark is right when the reference has
    the same one after the word that WER's alignment pairs with this word, be the word itself right or wrong.
    """
    reference, marked = _marks(sample.reference, sample.language, normalizer)
    hypothesis, written = _marks(sample.text, sample.language, normalizer)
    before_all = (-1, -1)
    right = sum((marked[i] & written[j]).total() for i, j in [before_all, *aligned(reference, hypothesis)])
    total = sum(marks.total() for marks in (*marked.values(), *written.values()))
    return 2 * right / total if total else 1.0


def casing_reward(sample: RewardInput, *, normalizer: str = PLAIN) -> float:
    """Share of the matched words that have the reference's case, in [0, 1].

    Matched are words that WER's alignment finds equal; words of the reference without a letter that has case do not
    count. Case is lower, upper, capitalised or the pattern of capitals (iPhone). Where none is matched: 1 if the
    reference has no case to get wrong (Chinese, digits), else 0.
    """
    reference = _cased(sample.reference, sample.language, normalizer)
    hypothesis = _cased(sample.text, sample.language, normalizer)
    pairs = aligned([word for word, _ in reference], [word for word, _ in hypothesis])
    same = [
        reference[i][1] == hypothesis[j][1] for i, j in pairs if reference[i][0] == hypothesis[j][0] and reference[i][1]
    ]
    return sum(same) / len(same) if same else float(not any(case for _, case in reference))


def _marks(text: str, language: str, normalizer: str) -> tuple[list[str], dict[int, Counter[str]]]:
    """The words of a text, and the marks after each by its place; those before the first word are at -1."""
    found: list[str] = []
    marks: dict[int, Counter[str]] = {}
    for part in _MARK.split(text.translate(_SAME_MARK)):
        if _MARK.fullmatch(part):
            marks.setdefault(len(found) - 1, Counter())[part] += 1
        else:
            found += words(part, language, normalizer)
    return found, {place: marks.get(place, Counter()) for place in range(-1, len(found))}


def _cased(text: str, language: str, normalizer: str) -> list[tuple[str, str]]:
    """Each word with the case that it is written in."""
    pieces = _PIECE.findall(unicodedata.normalize("NFC", text))
    return [(word, _case(piece)) for piece in pieces for word in words(piece, language, normalizer)]


def _case(piece: str) -> str:
    """The case of a piece in one word; empty if no letter has any."""
    letters = "".join(c for c in piece if c.isupper() or c.islower())
    if not letters:
        return ""
    if letters.islower():
        return "lower"
    if letters[0].isupper() and not any(map(str.isupper, letters[1:])):
        return "capitalised"
    return "upper" if letters.isupper() else "".join("A" if c.isupper() else "a" for c in letters)
