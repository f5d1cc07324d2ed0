import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st

from rlhf_platform.data.dialogue import (
    Next,
    Session,
    Turn,
    follow_up,
    is_dialogue,
    session_of,
    split_reply,
    with_clips,
    written,
)
from rlhf_platform.errors import DataError
from rlhf_platform.types import Prompt

PLAIN = st.text(st.characters(categories=("L", "Nd", "Zs")), min_size=1).map(str.strip).filter(bool)


@pytest.fixture
def clips(tmp_path: Path) -> list[str]:
    """Of 0.5, 0.75 and 1 s."""
    paths = [str(tmp_path / f"{number}.flac") for number in range(3)]
    for number, path in enumerate(paths):
        sf.write(path, np.zeros(8_000 + 4_000 * number, np.int16), 16_000)
    return paths


def prompt(clips: list[str]) -> Prompt:
    coming = [
        {"audio": clips[1], "text": "what is my name", "reference": "your name is anna, sir"},
        {"audio": clips[2], "text": "who are you", "reference": "i am max, sir"},
    ]
    metadata = {"persona": "you are max", "said": "my name is anna", "kind": "intro", "group": "g", "next": coming}
    return Prompt("rl/7", clips[0], "hello anna, sir", "en", "someone", 0.5, metadata | {"reasoning": "anna"})


def test_a_prompt_is_a_dialogue_when_it_says_what_the_user_said() -> None:
    assert is_dialogue({"said": "hello"})
    assert not is_dialogue({"persona": "you are max"})


def test_a_session_has_everything_that_the_metadata_have() -> None:
    history = [
        {"role": "user", "audio": "/a.flac", "text": "my name is anna"},
        {"role": "assistant", "text": "hello anna", "tokens": [5, 6, 2], "reasoning": "anna"},
    ]
    coming = [{"audio": "/c.flac", "text": "who are you", "reference": "i am max"}]
    metadata = {"persona": "you are max", "said": "what is my name", "history": history, "next": coming}
    assert session_of("/b.flac", metadata) == Session(
        "you are max",
        (
            Turn("user", "my name is anna", "/a.flac"),
            Turn("assistant", "hello anna", tokens=(5, 6, 2), reasoning="anna"),
        ),
        "what is my name",
        "/b.flac",
        (Next("/c.flac", "who are you", "i am max"),),
    )
    assert session_of("/b.flac", {"said": "hello"}) == Session("", (), "hello", "/b.flac")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>open the box</think> aye", ("open the box", "aye")),
        ("aye", ("", "aye")),
        ("<think>open the box", ("open the box", "")),
        ("<think></think> aye", ("", "aye")),
        ("open the box</think> aye", ("open the box", "aye")),
        ("<think>a</think> aye</think> sir", ("a", "aye</think> sir")),
        ("aye <think>open", ("aye open", "")),
        ("", ("", "")),
    ],
)
def test_a_completion_is_split_into_its_trace_and_its_reply(text: str, expected: tuple[str, str]) -> None:
    assert split_reply(text) == expected


@given(st.just("") | PLAIN, PLAIN)
def test_what_is_written_is_split_again(reasoning: str, reply: str) -> None:
    assert split_reply(written(reasoning, reply)) == (reasoning, reply)


def test_a_reply_with_and_without_a_trace_is_written_as_the_page_says() -> None:
    assert written("open the box", "aye") == "<think>open the box</think> aye"
    assert written("", "aye") == "aye"


def test_the_next_prompt_has_the_users_turn_and_the_policys_reply_in_its_history(clips: list[str]) -> None:
    first = prompt(clips)
    said = session_of(first.audio, first.metadata).next[0]
    second = follow_up(first, "<think>my name is anna</think> hello anna, sir", (9, 4, 2), said)
    assert (second.id, second.audio, second.reference) == ("rl/7#2", clips[1], "your name is anna, sir")
    assert second.duration == 0.75
    session = session_of(second.audio, second.metadata)
    assert session == Session(
        "you are max",
        (
            Turn("user", "my name is anna", clips[0]),
            Turn("assistant", "hello anna, sir", tokens=(9, 4, 2), reasoning="my name is anna"),
        ),
        "what is my name",
        clips[1],
        (Next(clips[2], "who are you", "i am max, sir"),),
    )
    assert second.metadata["group"] == "g"
    assert not {"reasoning", "kind"} & set(second.metadata)

    third = follow_up(second, "<think>who", (7, 7), session.next[0])
    assert (third.id, third.reference, third.duration) == ("rl/7#3", "i am max, sir", 1.0)
    last = session_of(third.audio, third.metadata)
    assert last.history[:2] == session.history
    assert last.history[2:] == (
        Turn("user", "what is my name", clips[1]),
        Turn("assistant", "", tokens=(7, 7), reasoning="who"),
    )
    assert last.next == ()
    assert "history" not in first.metadata


def test_turns_are_counted_from_the_first_prompt_whatever_its_id(clips: list[str]) -> None:
    odd = Prompt("call#9", clips[0], "x", "en", metadata={"said": "hello"})
    second = follow_up(odd, "hi", (1,), Next(clips[1], "and now"))
    assert second.id == "call#9#2"
    assert second.reference == ""
    assert follow_up(second, "hi", (1,), Next(clips[2], "so")).id == "call#9#3"


def test_a_turn_that_was_not_scripted_ends_the_script(clips: list[str]) -> None:
    second = follow_up(prompt(clips), "hi", (1,), Next(clips[1], "something else"))
    assert session_of(second.audio, second.metadata).next == ()


def test_a_next_turn_without_its_clip_is_refused(clips: list[str], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.flac: no such audio file"):
        follow_up(prompt(clips), "hi", (1,), Next(str(tmp_path / "gone.flac"), "hello"))


def test_the_paths_of_all_clips_change_and_nothing_else(clips: list[str]) -> None:
    metadata = {
        "said": "a",
        "history": [{"role": "user", "audio": "x", "text": "x"}, {"role": "assistant", "text": "y"}],
        "next": [{"audio": "z", "text": "z", "reference": "z"}],
    }
    assert with_clips(metadata, lambda path: f"/data/{path}") == {
        "said": "a",
        "history": [{"role": "user", "audio": "/data/x", "text": "x"}, {"role": "assistant", "text": "y"}],
        "next": [{"audio": "/data/z", "text": "z", "reference": "z"}],
    }


def test_dialogues_are_read_without_torch() -> None:
    code = "import sys, rlhf_platform.data.manifest, rlhf_platform.data.labelled; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
