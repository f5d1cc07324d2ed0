"""Phrases by which a policy excuses itself from the task, in words that sound polite to a judge.

"I did not hear clearly" in answer to clear audio is such a reward hack. A phrase that the reference says too is none.
"""

from collections.abc import Sequence
from functools import cache

from rlhf_platform.data.text import language_code, words

PHRASES: dict[str, tuple[str, ...]] = {
    "en": (
        "did not hear",
        "didn't hear",
        "cannot hear",
        "can't hear",
        "could not hear",
        "couldn't hear",
        "could not understand the audio",
        "couldn't understand the audio",
        "could you repeat",
        "can you repeat",
        "please repeat",
        "say that again",
        "unintelligible",
        "inaudible",
        "audio is unclear",
        "audio is not clear",
    ),
    "zh": ("没听清", "没有听清", "听不清", "没听懂", "请再说一遍", "再说一次", "请重复", "无法识别"),
    "de": ("nicht verstanden", "nicht gehört", "noch einmal wiederholen", "bitte wiederholen", "unverständlich"),
    "fr": ("pas entendu", "pas bien compris", "pouvez-vous répéter", "inaudible", "inintelligible"),
    "es": ("no he oído", "no escuché", "puede repetir", "puedes repetir", "ininteligible", "inaudible"),
    "ja": ("聞き取れません", "聞こえません", "もう一度", "聞き取れない"),
}
"""By ISO 639-1 code. English ones count everywhere: a policy falls back to English."""


def is_evasive(text: Sequence[str], reference: Sequence[str], language: str) -> bool:
    """Whether the words of a text have a phrase of PHRASES that those of the reference have not."""
    said, expected = f" {' '.join(text)} ", f" {' '.join(reference)} "
    return any(phrase in said and phrase not in expected for phrase in _phrases(language))


@cache
def _phrases(language: str) -> tuple[str, ...]:
    """As the words of `language`, each between spaces."""
    phrases = dict.fromkeys(PHRASES.get(language_code(language), ()) + PHRASES["en"])
    return tuple(f" {' '.join(words(phrase, language))} " for phrase in phrases)
