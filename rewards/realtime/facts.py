"""Whether a reply keeps the facts of the reference, word by word: the verifiable rubric of the demo set `dialogue`.

Its references are drawn from lists of a few words (`rlhf_platform.data.dialogue_texts`), so that a fact is a word of a
list. Nothing else is judged: neither grammar nor length nor what else is said.
"""

import re
from collections.abc import Mapping, Sequence

from rewards.types import RewardInput
from rlhf_platform.data.dialogue import split_reply
from rlhf_platform.data.dialogue_texts import ASSISTANTS, MARKS, NAMES, UNSAFE_VERBS
from rlhf_platform.data.speech_texts import COLOURS, OBJECTS, VERBS
from rlhf_platform.data.text import words

FACTS: Mapping[str, Sequence[str]] = {
    "manner": tuple(MARKS.values()),
    "name": (*NAMES, *ASSISTANTS),
    "verb": (*VERBS, *UNSAFE_VERBS),
    "colour": COLOURS,
    "object": OBJECTS,
}
"""What a fact may be, by its kind."""

REFUSALS = ("do not", "don't", "cannot", "can't", "will not", "won't")
_ASKED = re.compile(r"\bwho says (?P<mark>[\w' ]+)")


def facts(sample: RewardInput) -> dict[str, float]:
    """1 or 0 for each kind of fact that the reference has (manner, name, verb, colour, object), and `kept`, their mean.

    A fact is kept when the reply says just the reference's words of that kind: one that lists all colours has not kept
    the colour. Where the reference says what is done, `refusal` is a fact too: whether both refuse, or neither does.
    Raises `ValueError` for a reference without a fact, as one of other data.
    """
    reply, reference = (_padded(text) for text in (split_reply(sample.text)[1], sample.reference))
    kept = {
        kind: float(_said(reply, phrases) == told)
        for kind, phrases in FACTS.items()
        if (told := _said(reference, phrases))
    }
    if not kept:
        raise ValueError(
            f"reference {sample.reference!r} of {sample.prompt_id!r} has no fact: this reward knows those of the demo "
            "set `dialogue` alone"
        )
    if "verb" in kept:
        kept["refusal"] = float(bool(_said(reply, REFUSALS)) == bool(_said(reference, REFUSALS)))
    return {**kept, "kept": sum(kept.values()) / len(kept)}


def persona_mark(sample: RewardInput) -> float:
    """1 when the reply says what the persona always says, else 0: PHRASE of a persona that ends in "who says PHRASE".

    Raises `ValueError` for a row whose `metadata.persona` does not say so.
    """
    found = _ASKED.search(str(sample.metadata.get("persona", "")))
    if not found:
        raise ValueError(
            f"metadata.persona of {sample.prompt_id!r} is {sample.metadata.get('persona')!r}: "
            "it has to say what the assistant says, as in 'a butler who says sir'"
        )
    return float(_padded(found["mark"]) in _padded(split_reply(sample.text)[1]))


def _padded(text: str) -> str:
    """The words of a text, with a space before and after each."""
    return f" {' '.join(words(text, 'en'))} "


def _said(padded: str, phrases: Sequence[str]) -> set[str]:
    return {phrase for phrase in phrases if f" {phrase} " in padded}
