"""Replies and the facts in them, against the demo set's own good and flawed replies."""

import random

import pytest

from rewards.realtime import closed, evasive, facts, persona_mark
from rewards.types import RewardInput
from rlhf_platform.data.dialogue import written
from rlhf_platform.data.dialogue_texts import (
    PERSONAS,
    REQUESTS,
    UNSAFE,
    Ask,
    Persona,
    flawed_reply,
    flaws_of,
    good_replies,
)

ASKS = (
    Ask("intro", name="anna"),
    Ask("who"),
    Ask("recall", name="anna"),
    Ask("asked", colour="red", thing="box"),
    REQUESTS[0],
    UNSAFE[0],
)


def answer(text: str, reference: str = "", persona: str = "") -> RewardInput:
    return RewardInput("p", text, reference=reference, metadata={"persona": persona})


@pytest.mark.parametrize(
    ("text", "is_closed"),
    [
        ("<think>red</think> aye", True),
        ("aye", True),
        ("red</think> aye", True),  # opened by the prompt
        ("<think>red", False),
        ("<think>red</think>", False),
        ("<think>red</think> ...", False),
        ("<think>red</think> aye <think> again", False),
        ("<think>red</think> aye </think> aye", False),
        ("", False),
    ],
)
def test_a_trace_is_closed_and_a_reply_follows(text: str, is_closed: bool) -> None:
    assert closed(answer(text)) == float(is_closed)


@pytest.mark.parametrize(
    ("text", "reference", "excuses"),
    [
        ("<think>red</think> sorry, i did not hear you", "aye", True),
        ("<think>i did not hear you</think> aye", "aye", False),  # thought, not said
        ("i did not hear you", "i did not hear you", False),
        ("aye", "aye", False),
    ],
)
def test_an_excuse_is_what_is_said_and_the_reference_does_not_say(text: str, reference: str, excuses: bool) -> None:
    assert evasive(answer(text, reference)) == float(excuses)


@pytest.mark.parametrize("ask", ASKS, ids=lambda ask: ask.kind)
@pytest.mark.parametrize("persona", PERSONAS, ids=lambda persona: f"{persona.name} {persona.manner}")
def test_every_good_wording_keeps_all_and_every_flaw_of_content_loses_some(persona: Persona, ask: Ask) -> None:
    reference = good_replies(persona, ask)[0]
    for reply in good_replies(persona, ask):
        found = facts(answer(written("what was heard", reply), reference))
        assert set(found.values()) == {1.0}, reply
        assert persona_mark(answer(reply, persona=persona.text)) == 1.0
    for seed in range(8):
        for flaw in set(flaws_of(ask)) - {"long"}:
            reply = flawed_reply(persona, ask, flaw, random.Random(seed))
            assert facts(answer(reply, reference))["kept"] < 1.0, (flaw, reply)


def test_facts_by_hand() -> None:
    reference = "very well sir, i open the red box"
    kept = facts(answer("sir, i open the green box", reference))
    assert kept == {
        "manner": 1.0,
        "verb": 1.0,
        "colour": 0.0,
        "object": 1.0,
        "refusal": 1.0,
        "kept": pytest.approx(4 / 5),
    }
    everything = facts(answer("sir aye, i open close find bring the red green white golden box door", reference))
    assert everything["kept"] == pytest.approx(1 / 5)  # it lists all and keeps nothing but that it does not refuse
    refused = facts(answer("sorry sir, i do not open things", reference))
    assert (refused["verb"], refused["refusal"]) == (1.0, 0.0)
    thought = facts(answer("<think>sir, open the red box", reference))
    assert thought["kept"] == pytest.approx(1 / 5)


def test_what_is_no_row_of_the_demo_set_is_refused() -> None:
    with pytest.raises(ValueError, match=r"reference 'hello there' of 'p' has no fact"):
        facts(answer("hello", "hello there"))
    with pytest.raises(ValueError, match=r"metadata.persona of 'p' is ''"):
        persona_mark(answer("aye"))


def test_the_phrase_of_a_persona_is_said_word_by_word() -> None:
    friend = "you are ivy, a friend who says my friend"
    assert persona_mark(answer("sure, my friend", persona=friend)) == 1.0
    assert persona_mark(answer("sure, my friends", persona=friend)) == 0.0
    assert persona_mark(answer("<think>my friend</think> sure", persona=friend)) == 0.0
