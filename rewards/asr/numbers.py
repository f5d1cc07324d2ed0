"""Numbers and dates of English text: what they are worth, and how they are written. Other languages are refused.

Values are read by the number rules of Whisper's normaliser (2212.04356, appendix C), which knows spoken and written
forms: "twenty one dollars" and "$21" are one value in two forms.
"""

import re
from collections import Counter

from rapidfuzz.distance import Levenshtein

from rewards.types import RewardInput
from rlhf_platform.data.text import PLAIN, language_code, words

Number = tuple[str, str]
"""A value, and the plain words that it is written with."""

_NUMBER = re.compile(r"([-+]?[$€£¢]?)(\d+(?:\.\d+)*)(st|nd|rd|th|s|%)?")
_DAY = re.compile(r"(\d{1,2})(?:st|nd|rd|th)?")
_YEAR = re.compile(r"\d{4}")
_MONTH_NAMES = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_MONTHS = {name[:letters]: number for number, name in enumerate(_MONTH_NAMES, 1) for letters in (3, 9)} | {"sept": 9}
_ONE = re.compile(r"\bone(s?)\b")
"""Whisper's rules write 1 as a word, even in 1.5."""


def number_reward(sample: RewardInput) -> float:
    """F1 of the values of numbers and dates, each as often as it occurs, in [0, 1]; 1 when neither text has any.

    A value has its sign, its currency or percent, and no ordinal ending: 5th and 5 are alike, $5 and 5 are not. A
    month with a day, before or after it, is a date, with the year if one follows. Raises `ValueError` for a language
    other than English.
    """
    reference, hypothesis = (Counter(value for value, _ in numbers) for numbers in _both(sample))
    total = reference.total() + hypothesis.total()
    return 2 * (reference & hypothesis).total() / total if total else 1.0


def number_form_reward(sample: RewardInput) -> float:
    """Share of the values that both texts have that are written as in the reference, in [0, 1].

    The form is the plain words: "May 5th, 2021" and "may 5th 2021" are one form, "May fifth, twenty twenty one"
    is another. Where no value is in both: 1 if the reference has none, else 0. Errors as `number_reward`.
    """
    reference, hypothesis = map(Counter, _both(sample))
    values = Counter(value for value, _ in reference.elements()) & Counter(value for value, _ in hypothesis.elements())
    if not values:
        return float(not reference)
    return (reference & hypothesis).total() / values.total()


def numbers_of(text: str) -> list[Number]:
    """The numbers and dates of an English text, in order."""
    read = words(text, "en", "whisper-1")
    written = _written(words(text, "en", PLAIN), read)
    found: list[Number] = []
    place = 0
    while place < len(read):
        value, length = _date(read[place:]) or (_value(read[place]), 1)
        if value:
            found.append((value, " ".join(dict.fromkeys(written[place : place + length]))))
        place += length
    return found


def _both(sample: RewardInput) -> tuple[list[Number], list[Number]]:
    if language_code(sample.language) != "en":
        raise ValueError(f"language {sample.language!r}: numbers are read in English only")
    return numbers_of(sample.reference), numbers_of(sample.text)


def _written(plain: list[str], read: list[str]) -> list[str]:
    """For each word of `read` the words of the plain text that it was read from.

    Both are one text, so what is not equal in an alignment of the two is a number, or another thing that the rules
    rewrote: the words of such a stretch belong together.
    """
    written: list[str] = []
    start = 0
    for block in Levenshtein.editops(plain, read).as_matching_blocks():
        stretch = " ".join(plain[start : block.a])
        written += [stretch] * (block.b - len(written))
        written += plain[block.a : block.a + block.size]
        start = block.a + block.size
    return written


def _value(word: str) -> str:
    """A number without ordinal ending, and zeros that start it or end a decimal; empty for another word.

    Zeros at the start go since Whisper's rules keep those that are spoken, and drop those that are written.
    """
    match = _NUMBER.fullmatch(_ONE.sub(r"1\1", word))
    if not match:
        return ""
    unit, digits, ending = match.groups()
    whole, point, decimals = digits.partition(".")
    decimals = decimals if "." in decimals else decimals.rstrip("0")
    kept = ending if ending in ("s", "%") else ""
    return f"{unit}{whole.lstrip('0') or '0'}{point if decimals else ''}{decimals}{kept}"


def _date(read: list[str]) -> tuple[str, int] | None:
    """The date that the words start with, as year-month-day, and how many words it takes."""
    first, second, third, fourth = (read + [""] * 4)[:4]
    if first in _MONTHS and (day := _day(second)):
        month, year, length = first, third, 2
    elif (day := _day(first)) and second in _MONTHS:
        month, year, length = second, third, 2
    elif (day := _day(first)) and second == "of" and third in _MONTHS:
        month, year, length = third, fourth, 3
    else:
        return None
    dated = bool(_YEAR.fullmatch(year))
    return f"{year if dated else '?'}-{_MONTHS[month]}-{day}", length + dated


def _day(word: str) -> int:
    """The day of a month, 1 to 31; 0 for another word."""
    match = _DAY.fullmatch(_ONE.sub(r"1\1", word))
    day = int(match[1]) if match else 0
    return day if day <= 31 else 0
