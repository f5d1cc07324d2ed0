"""Sessions of the demo set `dialogue` as text, and pairs of replies to their last turns for judges."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlhf_platform.data.dialogue import ASSISTANT, USER
from rlhf_platform.data.dialogue_texts import (
    FLAWS,
    KINDS,
    NAMES,
    PERSONAS,
    REQUESTS,
    UNSAFE,
    Ask,
    Persona,
    flawed_reply,
    flaws_of,
    good_replies,
)
from rlhf_platform.data.labelled import CRITERIA, Labelled

TURNS = (1, 2, 3)
"""User turns of a session, each number as likely: half of all turns then begin one, a third are second turns."""
TIES = 0.1
"""Share of the pairs in which both replies are good."""

_OPENING = {"intro": 5.0, "request": 5.0, "unsafe": 2.0, "who": 1.0}
_LATER = {"intro": 2.0, "request": 3.0, "unsafe": 1.5, "who": 1.0, "recall": 12.0, "asked": 12.0}
"""How likely each kind is in relation to the others that are possible; what has to be remembered is asked often."""


@dataclass(frozen=True)
class Pools:
    """What sessions may be about."""

    requests: Sequence[Ask]
    unsafe: Sequence[Ask]
    names: Mapping[Persona, Sequence[str]]
    """Of users, by whom they speak to."""
    opening: Mapping[str, float]
    """Kinds of first turns and their weights."""


@dataclass(frozen=True)
class Talk:
    """A session as text."""

    persona: Persona
    asks: tuple[Ask, ...]


def pools(seed: int) -> tuple[Pools, Pools]:
    """What is learnt from, and what is held out: a quarter of the commands, and one user's name of each persona.

    A held-out session opens with something held out, so that no dialogue of one is a dialogue of the other. "who are
    you" is never held out, and so opens none.
    """
    rng = random.Random(f"{seed}/pools")
    requests, unsafe = rng.sample(REQUESTS, len(REQUESTS)), rng.sample(UNSAFE, len(UNSAFE))
    cuts = len(requests) // 4, len(unsafe) // 4
    held_out = {persona: rng.choice(NAMES) for persona in PERSONAS}
    others = {persona: tuple(name for name in NAMES if name != held_out[persona]) for persona in PERSONAS}
    opening = {kind: weight for kind, weight in _OPENING.items() if kind != "who"}
    return (
        Pools(requests[cuts[0] :], unsafe[cuts[1] :], others, _OPENING),
        Pools(requests[: cuts[0]], unsafe[: cuts[1]], {p: (name,) for p, name in held_out.items()}, opening),
    )


def draw_talk(rng: random.Random, about: Pools) -> Talk:
    """A session of 1 to 3 user turns. Nothing is asked that an earlier turn does not tell."""
    persona = rng.choice(PERSONAS)
    asks: list[Ask] = []
    for _ in range(rng.choice(TURNS)):
        weights = about.opening if not asks else {kind: _LATER[kind] for kind in KINDS if _possible(kind, asks)}
        kind = rng.choices(list(weights), list(weights.values()))[0]
        asks.append(_ask(rng, kind, persona, asks, about))
    return Talk(persona, tuple(asks))


def labelled_pairs(seed: int, sizes: Mapping[str, int]) -> list[Labelled]:
    """So many pairs of each split; those of `heldout` are of held-out sessions.

    Half of the better replies are called a, and each criterion is met as often. No pair is met twice.
    """
    learnt, held_out = pools(seed)
    taken: set[tuple[object, ...]] = set()
    found: list[Labelled] = []
    for split, size in sizes.items():
        rng = random.Random(f"{seed}/labelled/{split}")
        ties = round(TIES * size)
        wanted = ["tie"] * ties + [CRITERIA[i // 2 % len(CRITERIA)] for i in range(size - ties)]
        sides = ["tie"] * ties + ["ab"[i % 2] for i in range(size - ties)]
        for number, place in enumerate(rng.sample(range(size), size)):
            about = held_out if split == "heldout" else learnt
            while True:
                pair = _pair(rng, draw_talk(rng, about), wanted[place], sides[place], f"{split}/{number:04d}", split)
                if pair and (content := _content(pair)) not in taken:
                    break
            taken.add(content)
            found.append(pair)
    return found


def history_of(talk: Talk, turn: int) -> list[tuple[str, str]]:
    """(role, text) of what was said before user turn `turn`, counted from 0, with good replies."""
    said = [(ask.text, good_replies(talk.persona, ask)[0]) for ask in talk.asks[:turn]]
    return [turn for user, reply in said for turn in ((USER, user), (ASSISTANT, reply))]


def _possible(kind: str, asks: Sequence[Ask]) -> bool:
    before = [ask.kind for ask in asks]
    if kind in ("request", "unsafe"):
        return True
    if kind == "recall":
        return "intro" in before and kind not in before
    if kind == "asked":  # of an unsafe command it would be unclear whether it counts
        commands = [each for each in before if each in ("request", "unsafe")]
        return commands[-1:] == ["request"] and kind not in before
    return kind not in before


def _ask(rng: random.Random, kind: str, persona: Persona, asks: Sequence[Ask], about: Pools) -> Ask:
    if kind in ("request", "unsafe"):
        return rng.choice([ask for ask in (about.requests if kind == "request" else about.unsafe) if ask not in asks])
    if kind == "intro":
        return Ask(kind, name=rng.choice(about.names[persona]))
    if kind == "recall":
        return Ask(kind, name=next(ask.name for ask in asks if ask.kind == "intro"))
    if kind == "asked":
        last = [ask for ask in asks if ask.kind == "request"][-1]
        return Ask(kind, colour=last.colour, thing=last.thing)
    return Ask(kind)


def _pair(rng: random.Random, talk: Talk, wanted: str, better: str, name: str, split: str) -> Labelled | None:
    """A pair about the session's last turn; None where no reply to it has the flaw that is wanted."""
    persona, ask = talk.persona, talk.asks[-1]
    flaws = [flaw for flaw in flaws_of(ask) if FLAWS[flaw] == wanted]
    if wanted != "tie" and not flaws:
        return None
    good, other = rng.sample(good_replies(persona, ask), 2)
    bad = flawed_reply(persona, ask, flaws[0], rng) if flaws else other
    a, b = (bad, good) if better == "b" else (good, bad)
    history = tuple(history_of(talk, len(talk.asks) - 1))
    return Labelled(name, persona.text, history, ask.text, a, b, better, wanted if flaws else "", split)


def _content(pair: Labelled) -> tuple[object, ...]:
    return pair.persona, pair.history, pair.said, frozenset((pair.a, pair.b))
