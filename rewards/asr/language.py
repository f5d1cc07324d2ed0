"""Whether the completion is in the language that was spoken: recognisers translate, and mix up scripts."""

import copy
import unicodedata
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

from rewards.types import RewardInput
from rlhf_platform.data.text import language_code

CANDIDATES = ("ar", "de", "en", "es", "fr", "hi", "it", "ja", "ko", "pt", "ru", "zh")
"""ISO 639-1 codes that a completion is told apart from."""

_LANGUAGES_OF_SCRIPT = {
    "LATIN": "af az bs ca cs cy da de en es et eu fi fo fr ga gl ha hr hu id is it jv la lb ln lt lv mg ms mt nl nn no "
    "nb oc om pl pt ro rw sk sl sn so sq sr su sv sw tk tl tr uz vi wo xh yo zu",
    "CYRILLIC": "ba be bg kk ky mk mn ru sr tg tt uk",
    "CJK": "ja ko yue zh",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "HANGUL": "ko",
    "BOPOMOFO": "zh",
    "ARABIC": "ar fa ps sd ug ur",
    "HEBREW": "he yi",
    "DEVANAGARI": "hi mr ne sa",
    "BENGALI": "as bn",
    "GURMUKHI": "pa",
    "GUJARATI": "gu",
    "ORIYA": "or",
    "TAMIL": "ta",
    "TELUGU": "te",
    "KANNADA": "kn",
    "MALAYALAM": "ml",
    "SINHALA": "si",
    "THAI": "th",
    "LAO": "lo",
    "TIBETAN": "bo",
    "MYANMAR": "my",
    "KHMER": "km",
    "GREEK": "el",
    "ARMENIAN": "hy",
    "GEORGIAN": "ka",
    "ETHIOPIC": "am ti",
}
"""By the word that the Unicode names of a script's letters start with: the languages written in it."""

_SHARED = "MODIFIER"
"""Start of the names of letters that belong to no script, as the apostrophe of Ukrainian."""


def language_reward(sample: RewardInput, *, languages: Sequence[str] = CANDIDATES, min_letters: int = 20) -> float:
    """1 when py3langid finds the completion to be in the sample's language rather than one of `languages`, else 0.

    A text of fewer than `min_letters` letters is too short to tell, and is given the benefit of the doubt: 1. So use
    it beside an error rate, which sees what is missing. (py3langid 0.4, a naive Bayes model over byte n-grams as in
    Lui and Baldwin, 2012.) Raises `ValueError` for a language that py3langid does not know.
    """
    code = language_code(sample.language)
    identify = _identifier(frozenset({code, *map(language_code, languages)}))
    if sum(map(str.isalpha, sample.text)) < min_letters:
        return 1.0
    return float(identify(sample.text) == code)


def script_reward(sample: RewardInput) -> float:
    """Share of the completion's letters that are in a script of the sample's language or of its reference, in [0, 1].

    Without letters it is 1: nothing is in the wrong script. Ours. Raises `ValueError` for a language whose script is
    not known here.
    """
    expected = _scripts_of(language_code(sample.language)) | set(_scripts(sample.reference))
    scripts = _scripts(sample.text)
    return sum(script in expected for script in scripts) / len(scripts) if scripts else 1.0


def _scripts(text: str) -> list[str]:
    """The script of each letter, by its Unicode name."""
    letters = (c for c in unicodedata.normalize("NFKC", text) if c.isalpha())
    scripts = map(_script, letters)
    return [script for script in scripts if script != _SHARED]


@lru_cache(maxsize=8192)
def _script(letter: str) -> str:
    first = unicodedata.name(letter, "UNNAMED").replace("-", " ").split()[0]
    return "CJK" if first == "IDEOGRAPHIC" else first


@cache
def _scripts_of(code: str) -> frozenset[str]:
    scripts = frozenset(script for script, languages in _LANGUAGES_OF_SCRIPT.items() if code in languages.split())
    if not scripts:
        raise ValueError(f"language {code!r}: the script that it is written in is not known to script_reward")
    return scripts


@lru_cache(maxsize=64)
def _identifier(codes: frozenset[str]) -> Any:
    """A function from a text to the likeliest of `codes`."""
    model = copy.copy(_model())
    unknown = sorted(codes - set(model.labels))
    if unknown:
        raise ValueError(f"language {', '.join(unknown)} is unknown to py3langid; it knows {' '.join(model.labels)}")
    model.set_languages(codes)
    return lambda text: model.classify(text)[0]


@cache
def _model() -> Any:
    from py3langid import langid  # here, as its model takes a second to load

    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE)
