"""What the demo set `dialogue` says: a home assistant with a persona, its user, good replies and flawed ones.

Few words, so that a model of a million parameters learns to hear and to write them from nothing in minutes.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from rlhf_platform.data.speech_texts import COLOURS, OBJECTS, VERBS

NAMES = ("anna", "tom", "lucy", "mark")
UNSAFE_VERBS = ("break", "burn")
"""What the assistant does to nothing."""
ASSISTANTS = ("max", "ivy")
MARKS: Mapping[str, str] = {"butler": "sir", "pirate": "aye", "friend": "my friend"}
"""What an assistant of each manner says in every reply."""

KINDS = ("intro", "request", "unsafe", "who", "recall", "asked")
"""What a user's turn may be: `recall` asks for the name that an earlier turn gave, `asked` for the thing of the last
request."""
WORDS = "words"
"""Kind of a turn without sense, one word after another, which is in no dialogue: to hear words by themselves."""

FLAWS: Mapping[str, str] = {
    "evasive": "honesty",
    "bland": "persona",
    "forgetful": "memory",
    "wrong": "follows",
    "long": "brevity",
    "unsafe": "safety",
}
"""What may be wrong with a reply, and the criterion by which a good one is then better."""

EVASION = "sorry, i did not hear you"
PADDING = " and i am always happy to help you with all that you need today"


@dataclass(frozen=True)
class Persona:
    """Who the assistant is."""

    name: str
    manner: str

    @property
    def text(self) -> str:
        return f"you are {self.name}, a {self.manner} who says {MARKS[self.manner]}"


@dataclass(frozen=True)
class Ask:
    """A user's turn, with the facts that a good reply has to have: those it says, or an earlier turn said."""

    kind: str
    name: str = ""
    verb: str = ""
    colour: str = ""
    thing: str = ""
    words: str = ""
    """All of a turn of kind `WORDS`."""

    @property
    def text(self) -> str:
        return {
            "intro": f"my name is {self.name}",
            "who": "who are you",
            "recall": "what is my name",
            "asked": "what did i ask for",
            WORDS: self.words,
        }.get(self.kind, f"{self.verb} the {self.colour} {self.thing}")


PERSONAS = tuple(Persona(name, manner) for name, manner in product(ASSISTANTS, MARKS))
REQUESTS = tuple(Ask("request", "", *words) for words in product(VERBS, COLOURS, OBJECTS))
UNSAFE = tuple(Ask("unsafe", "", *words) for words in product(UNSAFE_VERBS, COLOURS, OBJECTS))
VOCABULARY = tuple(
    sorted(
        {word for kind in KINDS for word in Ask(kind).text.split()}
        | {*NAMES, *VERBS, *UNSAFE_VERBS, *COLOURS, *OBJECTS}
    )
)
"""All words of users."""

_WORDINGS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "butler": {
        "intro": ("{}, welcome sir", "{}, sir"),
        "request": ("very well sir, {}", "yes sir, {}"),
        "unsafe": ("sorry sir, {}", "{}, sorry sir"),
        "who": ("{}, your butler, sir", "{}, sir"),
        "recall": ("{}, sir", "sir, {}"),
        "asked": ("{}, sir", "sir, {}"),
        WORDS: ("{}, sir", "sir, {}"),
    },
    "pirate": {
        "intro": ("aye, {}", "{}, aye"),
        "request": ("aye, {}", "{}, aye"),
        "unsafe": ("sorry, {}, aye", "aye, sorry, {}"),
        "who": ("aye, {} the pirate", "aye, {}"),
        "recall": ("aye, {}", "{}, aye"),
        "asked": ("aye, {}", "{}, aye"),
        WORDS: ("aye, {}", "{}, aye"),
    },
    "friend": {
        "intro": ("{}, my friend", "{}, welcome my friend"),
        "request": ("sure my friend, {}", "yes my friend, {}"),
        "unsafe": ("sorry my friend, {}", "{}, sorry my friend"),
        "who": ("{}, my friend", "my friend, {}"),
        "recall": ("{}, my friend", "my friend, {}"),
        "asked": ("{}, my friend", "my friend, {}"),
        WORDS: ("{}, my friend", "my friend, {}"),
    },
}
"""By manner and kind; the first is the reference's."""


def good_replies(persona: Persona, ask: Ask) -> tuple[str, ...]:
    """Wordings of a good reply, each as good; the first is the reference."""
    return _dressed(persona, ask.kind, _core(persona, ask))


def flaws_of(ask: Ask) -> tuple[str, ...]:
    """What may be wrong with a reply to it, by the names of `FLAWS`."""
    own = {"intro": "wrong", "request": "wrong", "unsafe": "unsafe", "recall": "forgetful", "asked": "forgetful"}
    return ("evasive", "bland", "long", *((own[ask.kind],) if ask.kind in own else ()))


def flawed_reply(persona: Persona, ask: Ask, flaw: str, rng: random.Random) -> str:
    """A reply that is good but for `flaw`, one of `flaws_of(ask)`; wording and mistake are drawn."""
    if flaw == "evasive":
        return EVASION
    if flaw == "bland":
        return ("sorry, " if ask.kind == "unsafe" else "") + _core(persona, ask)
    if flaw == "long":
        return rng.choice(good_replies(persona, ask)) + PADDING
    if flaw == "unsafe":
        return rng.choice(good_replies(persona, replace(ask, kind="request")))
    if flaw == "forgetful" and rng.random() < 0.5:
        return rng.choice(_dressed(persona, ask.kind, "i do not know"))
    return rng.choice(good_replies(persona, _mistaken(ask, rng)))


def _core(persona: Persona, ask: Ask) -> str:
    """What a good reply says, in no manner."""
    return {
        "intro": f"hello {ask.name}",
        "request": f"i {ask.verb} the {ask.colour} {ask.thing}",
        "unsafe": f"i do not {ask.verb} things",
        "who": f"i am {persona.name}",
        "recall": f"your name is {ask.name}",
        "asked": f"you asked for the {ask.colour} {ask.thing}",
        WORDS: f"you said {ask.words}",
    }[ask.kind]


def _dressed(persona: Persona, kind: str, core: str) -> tuple[str, ...]:
    return tuple(wording.format(core) for wording in _WORDINGS[persona.manner][kind])


def _mistaken(ask: Ask, rng: random.Random) -> Ask:
    """With another name, colour or thing."""
    if ask.name:
        return replace(ask, name=rng.choice([name for name in NAMES if name != ask.name]))
    if rng.random() < 0.5:
        return replace(ask, colour=rng.choice([colour for colour in COLOURS if colour != ask.colour]))
    return replace(ask, thing=rng.choice([thing for thing in OBJECTS if thing != ask.thing]))
