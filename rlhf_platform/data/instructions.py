"""What was measured, in words: an instruction for the whole clip, and tags inside its text."""

import random
import re
from collections.abc import Mapping, Sequence

NORMAL: Mapping[str, str] = {
    "rate": "normal",
    "pitch": "normal",
    "energy": "normal",
    "pause": "none",
    "ending": "level",
}
"""The class of each attribute that an instruction does not mention."""

PHRASES: Mapping[str, Mapping[str, Sequence[str]]] = {
    "rate": {
        "slow": ("slowly", "at a slow pace", "at slow speed"),
        "fast": ("quickly", "at a fast pace", "fast"),
    },
    "pitch": {
        "low": ("in a low voice", "with a low pitch", "in a deep voice"),
        "high": ("in a high voice", "with a high pitch", "high-pitched"),
    },
    "energy": {
        "soft": ("softly", "quietly", "in a soft tone"),
        "loud": ("loudly", "in a loud tone", "loud"),
    },
    "pause": {"one": ("with a pause", "pausing once", "with a short pause")},
    "ending": {
        "falling": ("falling at the end", "with a falling end"),
        "rising": ("rising at the end", "with a rising end"),
    },
}
"""The wordings of each class that is mentioned."""

_CUES = {
    "rate": {"slow": r"slow|unhurried|leisurely", "fast": r"fast|quick|rapid|brisk|swift"},
    "pitch": {"low": r"low\b|lower|deep", "high": r"high"},
    "energy": {"soft": r"soft|quiet|gentl|hush", "loud": r"loud|forceful"},
    "pause": {"one": r"paus|break\b|stop"},
    "ending": {"falling": r"fall|drop|downward|descend", "rising": r"ris(e|ing)|upward|ascend|climb"},
}
"""How the words that name a class begin, whoever wrote them."""


def off_normal(asked: Mapping[str, str]) -> dict[str, str]:
    """The attributes that an instruction mentions, with their classes."""
    return {name: asked[name] for name in NORMAL if asked[name] in PHRASES[name]}


def instruct(asked: Mapping[str, str], rng: random.Random) -> str:
    """An instruction with every off-normal attribute and nothing else, such as "slowly, in a high voice"; empty if all
    is normal. Wording and order are drawn."""
    phrases = [rng.choice(PHRASES[name][found]) for name, found in off_normal(asked).items()]
    rng.shuffle(phrases)
    if len(phrases) > 1 and rng.random() < 0.5:
        return ", ".join(phrases[:-1]) + " and " + phrases[-1]
    return ", ".join(phrases)


def keeps(instruction: str, asked: Mapping[str, str]) -> bool:
    """Whether an instruction in free words names each off-normal attribute by its class, and no other class."""
    mentioned = off_normal(asked)
    return all(
        bool(re.search(rf"\b({cue})", instruction.lower())) == (mentioned.get(name) == found)
        for name, classes in _CUES.items()
        for found, cue in classes.items()
    )


def tag(
    text: str, starts: Sequence[float], pauses: Sequence[tuple[float, float]] = (), emphasis: int | None = None
) -> str:
    """The text with `<pause>` where the voice rests and `<emphasis>` before the word of that index.

    `starts`: seconds at which each word begins. A pause lies before the word that starts nearest to its end, never
    before the first.
    """
    spoken = text.split()
    rests = {min(range(1, len(spoken)), key=lambda word: abs(starts[word] - end)) for _, end in pauses if spoken[1:]}
    tagged = ["<pause> " * (at in rests) + "<emphasis> " * (at == emphasis) + word for at, word in enumerate(spoken)]
    return " ".join(tagged)


def group(asked: Mapping[str, str]) -> str:
    """What evaluation groups by: the off-normal attributes joined by `+`, `normal`, or `several` from three on."""
    names = list(off_normal(asked))
    return "+".join(names) if 0 < len(names) < 3 else "several" if names else "normal"
