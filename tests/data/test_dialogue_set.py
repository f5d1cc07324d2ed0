import hashlib
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhf_platform.data import demo
from rlhf_platform.data.audio import load_audio
from rlhf_platform.data.dialogue import is_dialogue
from rlhf_platform.data.dialogue_sessions import draw_talk, history_of, labelled_pairs, pools
from rlhf_platform.data.dialogue_texts import (
    COLOURS,
    EVASION,
    FLAWS,
    MARKS,
    NAMES,
    OBJECTS,
    PERSONAS,
    REQUESTS,
    UNSAFE,
    VOCABULARY,
    WORDS,
    Ask,
    Persona,
    flawed_reply,
    flaws_of,
    good_replies,
)
from rlhf_platform.data.dialogues import LABELLED, PRETRAINING, Plan, Spoken, build_dialogues, build_key, sessions
from rlhf_platform.data.digits import SPEAKERS
from rlhf_platform.data.labelled import CRITERIA, Labelled, read_labelled
from rlhf_platform.data.manifest import check_audio, check_splits, of_split, read_manifest, to_prompt

SIZES = {"train": 24, "calibration": 12, "heldout": 12}
SMALL = Plan(train=24, rl=12, heldout=12, transcripts=6, phrases=0.25, pairs=SIZES)
ASKS = (
    *REQUESTS,
    *UNSAFE,
    Ask("who"),
    *(Ask(kind, name=name) for kind in ("intro", "recall") for name in NAMES),
    *(Ask("asked", colour=colour, thing=thing) for colour in COLOURS for thing in OBJECTS),
)
MAX = Persona("max", "butler")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_dialogues(tmp_path_factory.mktemp("data") / "dialogue", SMALL)


def contents(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def facts(ask: Ask) -> list[str]:
    """What every good reply has to name."""
    return [ask.name] if ask.name else [ask.verb] if ask.kind == "unsafe" else [ask.verb, ask.colour, ask.thing]


def test_what_can_be_said_is_counted_by_hand() -> None:
    assert (len(PERSONAS), len(REQUESTS), len(UNSAFE), len(ASKS)) == (6, 64, 32, 64 + 32 + 1 + 8 + 16)
    assert MAX.text == "you are max, a butler who says sir"
    assert Ask("request", verb="open", colour="red", thing="box").text == "open the red box"
    assert Ask("intro", name="tom").text == "my name is tom"


@pytest.mark.parametrize(
    ("ask", "reply"),
    [
        (Ask("request", verb="open", colour="red", thing="box"), "very well sir, i open the red box"),
        (Ask("unsafe", verb="break", colour="red", thing="box"), "sorry sir, i do not break things"),
        (Ask("intro", name="anna"), "hello anna, welcome sir"),
        (Ask("recall", name="anna"), "your name is anna, sir"),
        (Ask("asked", colour="red", thing="box"), "you asked for the red box, sir"),
        (Ask("who"), "i am max, your butler, sir"),
    ],
)
def test_a_butler_answers_as_butlers_do(ask: Ask, reply: str) -> None:
    assert good_replies(MAX, ask)[0] == reply


def test_every_good_reply_is_short_and_keeps_its_manner_and_its_facts() -> None:
    for persona in PERSONAS:
        for ask in ASKS:
            replies = good_replies(persona, ask)
            assert len(set(replies)) == len(replies) == 2
            for reply in replies:
                assert len(reply.split()) <= 10
                assert MARKS[persona.manner] in reply
                assert [mark for mark in MARKS.values() if mark in reply] == [MARKS[persona.manner]]
                named = [persona.name] if ask.kind == "who" else facts(ask)
                assert all(fact in reply for fact in named)


def test_every_flawed_reply_has_its_flaw_and_no_other() -> None:
    rng = random.Random(0)
    for persona in PERSONAS:
        for ask in ASKS:
            for flaw in flaws_of(ask):
                reply = flawed_reply(persona, ask, flaw, rng)
                good = good_replies(persona, ask)
                assert reply not in good
                marked = MARKS[persona.manner] in reply
                kept = all(fact in reply for fact in facts(ask)) and (ask.kind != "who" or persona.name in reply)
                if flaw == "evasive":
                    assert reply == EVASION
                elif flaw == "bland":
                    assert (marked, kept) == (False, True)
                elif flaw == "long":
                    assert reply.startswith(good)
                    assert len(reply.split()) > 14
                elif flaw == "unsafe":
                    assert marked
                    assert f"i {ask.verb} the {ask.colour} {ask.thing}" in reply
                    assert "not" not in reply
                else:
                    assert (flaw in ("wrong", "forgetful"), marked, kept) == (True, True, False)


def test_each_flaw_is_met_where_it_applies() -> None:
    assert flaws_of(Ask("who")) == ("evasive", "bland", "long")
    assert {flaw for ask in ASKS for flaw in flaws_of(ask)} == set(FLAWS)
    assert set(FLAWS.values()) == set(CRITERIA)
    assert [ask.kind for ask in ASKS if "unsafe" in flaws_of(ask)] == ["unsafe"] * 32


def test_a_quarter_of_the_commands_and_a_name_of_each_persona_are_held_out() -> None:
    learnt, held_out = pools(seed=0)
    assert (len(held_out.requests), len(held_out.unsafe)) == (16, 8)
    assert sorted([*learnt.requests, *held_out.requests], key=REQUESTS.index) == list(REQUESTS)
    assert sorted([*learnt.unsafe, *held_out.unsafe], key=UNSAFE.index) == list(UNSAFE)
    for persona in PERSONAS:
        assert sorted([*learnt.names[persona], *held_out.names[persona]]) == sorted(NAMES)
        assert len(held_out.names[persona]) == 1


def test_nothing_is_asked_that_no_turn_before_tells() -> None:
    learnt, _ = pools(seed=0)
    for seed in range(500):
        asks = draw_talk(random.Random(seed), learnt).asks
        assert 1 <= len(asks) <= 3
        for at, ask in enumerate(asks):
            if ask.kind == "recall":
                assert [before.name for before in asks[:at] if before.kind == "intro"] == [ask.name]
            if ask.kind == "asked":
                last = [before for before in asks[:at] if before.kind in ("request", "unsafe")][-1]
                assert (last.kind, last.colour, last.thing) == ("request", ask.colour, ask.thing)


def dialogue(values: Mapping[str, Any]) -> tuple[str, ...]:
    return (values["persona"], *(turn["text"] for turn in values["history"] if turn["role"] == "user"), values["said"])


def texts(planned: Sequence[Spoken]) -> set[tuple[str, ...]]:
    """Every dialogue that a plan's sessions come to, turn by turn."""
    return {
        (spoken.talk.persona.text, *(ask.text for ask in spoken.talk.asks[: turn + 1]))
        for spoken in planned
        for turn in range(len(spoken.talk.asks))
    }


def test_the_whole_plan_keeps_held_out_dialogues_and_voices_apart() -> None:
    planned = list(sessions(Plan()))
    held_out = [each for each in planned if each.split == "heldout"]
    learnt = [each for each in planned if each.split in ("train", "rl")]
    assert not texts(held_out) & texts(learnt)
    unheard = {speaker.name for speaker in SPEAKERS["unseen"]}
    assert not unheard & {clip.speaker.name for spoken in learnt for clip in spoken.clips}
    assert unheard == {clip.speaker.name for spoken in held_out for clip in spoken.clips} & unheard


def test_the_whole_plan_has_its_rows_and_its_mixture_of_turns() -> None:
    rows = [(spoken, turn) for spoken in sessions(Plan()) for turn in range(len(spoken.clips))]
    assert Counter(spoken.split for spoken, _ in rows) == {"train": 1600, "rl": 400, "heldout": 300, "transcripts": 120}
    shares = [np.mean([turn == at for spoken, turn in rows if not spoken.heard]) for at in range(3)]
    assert shares == pytest.approx([1 / 2, 1 / 3, 1 / 6], abs=0.03)
    rl = [turn == 0 and len(spoken.clips) > 1 for spoken, turn in rows if spoken.split == "rl"]
    assert np.mean(rl) == pytest.approx(1 / 3, abs=0.03)


def test_a_build_passes_every_check_and_its_rows_say_what_they_are(built: Path) -> None:
    rows = read_manifest(built)
    check_splits(rows, "train")
    check_splits(rows, "rl")
    check_audio(rows, window=SMALL.longest)
    assert Counter(row.split for row in rows) == {"train": 24, "rl": 12, "heldout": 12, "transcripts": 6}
    answered = [row for row in rows if is_dialogue(row.metadata)]
    learnt = {dialogue(row.metadata) for row in answered if row.split != "heldout"}
    assert not learnt & {dialogue(row.metadata) for row in of_split(rows, "heldout")}
    for row in answered:
        assert row.metadata["reasoning"] == row.metadata["said"]
        assert (row.split == "train") or not row.metadata["flaw"]
        persona = next(persona for persona in PERSONAS if persona.text == row.metadata["persona"])
        if not row.metadata["flaw"]:
            assert MARKS[persona.manner] in row.text
            assert len(row.text.split()) <= 10
    assert any(row.metadata["flaw"] for row in answered)


def test_words_in_any_order_are_written_down_or_repeated(built: Path) -> None:
    rows = read_manifest(built)
    words = [row for row in rows if row.metadata["kind"] == WORDS]
    assert {row.split for row in words} == {"train", "transcripts"}
    assert all(row.metadata["kind"] == WORDS for row in rows if row.split == "transcripts")
    for row in words:
        said = row.metadata.get("said", row.text)
        assert set(said.split()) <= set(VOCABULARY)
        assert 1 <= len(said.split()) <= 4
        assert Path(row.audio).stem.startswith(said.replace(" ", "-"))
        if "said" in row.metadata and not row.metadata["flaw"]:
            assert f"you said {said}" in row.text
    assert not any(is_dialogue(row.metadata) for row in words if row.split == "transcripts")


def test_what_the_backbone_learnt_from_is_words_and_dialogues_and_nothing_held_out() -> None:
    planned = list(sessions(PRETRAINING))
    train = [each for each in planned if each.split == "train"]
    assert np.mean([each.talk.asks[0].kind == WORDS for each in train]) == pytest.approx(0.6, abs=0.02)
    assert np.mean([each.heard for each in train]) == pytest.approx(0.3, abs=0.02)
    assert len({ask.text for each in train for ask in each.talk.asks}) > 2000
    assert not texts(train) & texts([each for each in sessions(Plan()) if each.split == "heldout"])


def test_a_text_by_one_voice_is_written_once(built: Path) -> None:
    rows = read_manifest(built)
    prompts = [to_prompt(row) for row in rows]
    turns = [
        turn for prompt in prompts for turn in [*prompt.metadata.get("history", []), *prompt.metadata.get("next", [])]
    ]
    used = {prompt.audio for prompt in prompts} | {turn["audio"] for turn in turns if "audio" in turn}
    assert used == {str(path) for path in built.parent.rglob("*.flac")}
    said = [Path(prompt.audio).stem.rpartition("-")[0].replace("-", " ") for prompt in prompts]
    assert said == [prompt.metadata.get("said", prompt.reference) for prompt in prompts]


def test_a_session_goes_on_as_its_script_says(built: Path) -> None:
    rows = {row.id: row for row in read_manifest(built)}
    scripted = [row for row in rows.values() if row.metadata.get("next")]
    assert scripted
    assert all(row.id.endswith("/1") and row.split != "train" for row in scripted)
    for row in scripted:
        for number, coming in enumerate(row.metadata["next"], start=2):
            turn = rows[f"{row.id[:-1]}{number}"]
            assert (turn.metadata["said"], turn.text) == (coming["text"], coming["reference"])
            assert turn.audio == built.parent / coming["audio"]


def test_clips_start_and_end_with_speech_and_none_is_clipped(built: Path) -> None:
    for path in built.parent.rglob("*.flac"):
        samples = load_audio(path)
        loud = np.flatnonzero(np.abs(samples) > 0.1 * np.abs(samples).max())
        assert loud[0] / 16_000 < 0.15
        assert (len(samples) - loud[-1]) / 16_000 < 0.3
        assert np.abs(samples).max() < 0.999


def test_two_builds_are_bit_exact_and_the_second_is_found(built: Path, tmp_path: Path) -> None:
    build_dialogues(tmp_path / "again", SMALL)
    assert contents(tmp_path / "again") == contents(built.parent)

    def told(done: int, total: int) -> None:
        raise AssertionError("built again")

    assert build_dialogues(built.parent, SMALL, progress=told) == built


def test_the_demo_is_known_by_its_name(tmp_path: Path) -> None:
    assert demo.folder_of("dialogue", tmp_path) == tmp_path / "data" / f"dialogue-{build_key()}"
    assert demo.folder_of("exchanges", tmp_path) == tmp_path / "data" / f"exchanges-{build_key(PRETRAINING)}"
    assert build_key(replace(Plan(), seed=1)) != build_key()


def judged(pair: Labelled) -> tuple[Persona, list[str], str, str]:
    """Persona, user turns, better and worse reply."""
    persona = next(persona for persona in PERSONAS if persona.text == pair.persona)
    said = [text for role, text in pair.history if role == "user"]
    better, worse = (pair.b, pair.a) if pair.better == "b" else (pair.a, pair.b)
    return persona, [*said, pair.said], better, worse


def test_pairs_are_as_many_and_as_mixed_as_planned_and_none_is_met_twice() -> None:
    sizes = {"train": 600, "calibration": 120, "heldout": 200}
    pairs = labelled_pairs(0, sizes)
    assert Counter(pair.split for pair in pairs) == sizes
    assert Counter(pair.better for pair in pairs) == {"a": 414, "b": 414, "tie": 92}
    for split, size in sizes.items():
        each = Counter(pair.criterion for pair in pairs if pair.split == split)
        assert each == {"": size // 10} | dict.fromkeys(CRITERIA, size * 9 // 60)
    assert len({(p.persona, p.history, p.said, frozenset((p.a, p.b))) for p in pairs}) == len(pairs)


def test_held_out_pairs_are_of_held_out_dialogues_alone() -> None:
    pairs = labelled_pairs(0, {"train": 300, "calibration": 60, "heldout": 100})
    told = {split: {(p.persona, *judged(p)[1]) for p in pairs if p.split == split} for split in SIZES}
    assert not told["heldout"] & (told["train"] | told["calibration"])
    assert not told["heldout"] & texts([each for each in sessions(Plan()) if each.split != "heldout"])


def test_the_better_reply_is_good_and_the_other_has_the_flaw_of_the_criterion() -> None:
    for pair in labelled_pairs(0, {"calibration": 120}):
        persona, _, better, worse = judged(pair)
        assert MARKS[persona.manner] in better
        assert len(better.split()) <= 10
        if pair.criterion == "honesty":
            assert worse == EVASION
        elif pair.criterion == "persona":
            assert MARKS[persona.manner] not in worse
        else:
            assert MARKS[persona.manner] in worse
            assert (len(worse.split()) > 14) == (pair.criterion == "brevity")
            assert (pair.criterion == "safety") == ("do not" in better and "do not" not in worse)


def test_the_pairs_lie_beside_the_manifest(built: Path) -> None:
    assert read_labelled(built.parent / LABELLED) == labelled_pairs(SMALL.seed, SIZES)
    assert json.loads((built.parent / "build.json").read_text())["plan"]["pairs"] == SIZES


def test_a_history_has_the_good_replies_to_the_turns_before() -> None:
    learnt, _ = pools(seed=0)
    talk = next(talk for seed in range(99) if len((talk := draw_talk(random.Random(seed), learnt)).asks) == 3)
    assert history_of(talk, 0) == []
    assert history_of(talk, 2) == [
        ("user", talk.asks[0].text),
        ("assistant", good_replies(talk.persona, talk.asks[0])[0]),
        ("user", talk.asks[1].text),
        ("assistant", good_replies(talk.persona, talk.asks[1])[0]),
    ]
