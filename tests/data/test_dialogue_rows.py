import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from rlhf_platform.data.dialogue import session_of
from rlhf_platform.data.dialogue_keys import PERSONA_BUDGET
from rlhf_platform.data.manifest import check_audio, check_splits, read_manifest, to_prompt, write_manifest
from rlhf_platform.errors import DataError

USER = {"role": "user", "audio": "b.flac", "text": "my name is anna"}
ASSISTANT = {"role": "assistant", "text": "hello anna"}
NEXT = {"audio": "b.flac", "text": "who are you", "reference": "i am max"}


def row(**changes: Any) -> dict[str, Any]:
    """A good dialogue row of half a second; `changes` are made to its metadata."""
    metadata = {"persona": "you are max", "said": "what is my name", "history": [USER, ASSISTANT], "next": [NEXT]}
    good = {"audio": "a.flac", "text": "your name is anna", "language": "en", "speaker": "s", "duration": 0.5}
    return good | {"split": "train", "licence": "CC0-1.0", "metadata": metadata | changes}


def manifest(folder: Path, *rows: dict[str, Any]) -> Path:
    for name, samples in (("a.flac", 8_000), ("b.flac", 16_000)):
        sf.write(folder / name, np.zeros(samples, np.int16), 16_000)
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps({"id": str(number)} | row) + "\n" for number, row in enumerate(rows)))
    return path


def without(turn: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in turn.items() if name != key}


def test_paths_are_absolute_in_a_prompt_and_relative_in_every_manifest(tmp_path: Path) -> None:
    [read] = read_manifest(manifest(tmp_path, row()))
    prompt = to_prompt(read)
    session = session_of(prompt.audio, prompt.metadata)
    assert session.audio == str(tmp_path / "a.flac")
    assert session.history[0].audio == session.next[0].audio == str(tmp_path / "b.flac")
    (tmp_path / "elsewhere").mkdir()
    write_manifest(tmp_path / "elsewhere" / "manifest.jsonl", [read])
    [written] = map(json.loads, (tmp_path / "elsewhere" / "manifest.jsonl").read_text().splitlines())
    assert written["metadata"]["history"] == [USER | {"audio": "../b.flac"}, ASSISTANT]
    assert written["metadata"]["next"] == [NEXT | {"audio": "../b.flac"}]
    [again] = map(to_prompt, read_manifest(tmp_path / "elsewhere" / "manifest.jsonl"))
    found = session_of(again.audio, again.metadata)
    assert Path(found.history[0].audio).resolve() == tmp_path / "b.flac"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"said": " "}, "metadata.said is ' '; it must be text that is not empty"),
        ({"said": 3}, "metadata.said is 3; it must be text"),
        ({"persona": None}, "metadata.persona is None; it must be text"),
        ({"persona": "x" * (PERSONA_BUDGET + 1)}, "persona has 401 characters; at most 400: say it in fewer words"),
        ({"history": {}}, "metadata.history is not a list of turns, each an object"),
        ({"history": [USER, "hello"]}, "metadata.history is not a list of turns, each an object"),
        ({"next": 1}, "metadata.next is not a list of turns, each an object"),
        (
            {"history": [USER, ASSISTANT, ASSISTANT]},
            "history turn 3 is of role 'assistant', not 'user'; turns alternate, a user's first",
        ),
        ({"history": [ASSISTANT]}, "history turn 1 is of role 'assistant', not 'user'"),
        ({"history": [USER, USER]}, "history turn 2 is of role 'user', not 'assistant'"),
        ({"history": [without(USER, "role")]}, "history turn 1 is of role None, not 'user'"),
        ({"history": [USER]}, "history ends with a user, at turn 1; the user's latest turn is the row itself"),
        ({"history": [without(USER, "audio"), ASSISTANT]}, "history turn 1: no 'audio'"),
        ({"history": [USER | {"audio": "gone.flac"}, ASSISTANT]}, "history turn 1: audio 'gone.flac' does not exist"),
        (
            {"history": [USER | {"text": ""}, ASSISTANT]},
            "history turn 1: text is ''; it must be text that is",
        ),
        ({"history": [USER, ASSISTANT | {"text": 1}]}, "history turn 2: text is 1; it must be text"),
        (
            {"history": [USER, ASSISTANT | {"audio": "b.flac"}]},
            "history turn 2: unknown key 'audio'; it has role",
        ),
        (
            {"history": [USER, ASSISTANT | {"token": [1]}]},
            "history turn 2: unknown key 'token'; did you mean 'tok",
        ),
        ({"history": [USER, ASSISTANT | {"tokens": [-1]}]}, "history turn 2: tokens is a list of whole numbers"),
        ({"next": [without(NEXT, "reference")]}, "next turn 1: no 'reference'"),
        ({"next": [NEXT, NEXT | {"audio": "gone.flac"}]}, "next turn 2: audio 'gone.flac' does not exist"),
    ],
)
def test_a_bad_dialogue_is_refused_by_row_and_turn(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = manifest(tmp_path, row(), row(**changes))
    with pytest.raises(DataError) as error:
        read_manifest(path)
    first, second = str(error.value).splitlines()
    assert first == f"{path}: 1 row cannot be used"
    assert second.startswith(f"manifest.jsonl row 2: {message}")


def test_a_persona_of_just_the_budget_and_an_empty_one_pass(tmp_path: Path) -> None:
    rows = read_manifest(manifest(tmp_path, row(persona="x" * PERSONA_BUDGET), row(persona="")))
    assert len(rows) == 2


def test_metadata_without_what_was_said_are_ones_own(tmp_path: Path) -> None:
    own = row(history="as I like") | {"metadata": {"history": "as I like"}}
    assert read_manifest(manifest(tmp_path, own))[0].metadata == {"history": "as I like"}


def test_the_clips_of_other_turns_are_decoded_too(tmp_path: Path) -> None:
    rows = read_manifest(manifest(tmp_path, row()))
    check_audio(rows, window=1.0)
    with pytest.raises(DataError, match=r"row 1: b\.flac lasts 1\.000 s, longer than the window of 0\.9 s"):
        check_audio(rows, window=0.9)
    (tmp_path / "b.flac").write_bytes(b"no sound")
    with pytest.raises(DataError, match=r"row 1: audio .*b\.flac: not readable as audio"):
        check_audio(rows, window=1.0)


def held_out(**changes: Any) -> dict[str, Any]:
    return row(**changes) | {"split": "heldout"}


def test_the_same_reply_may_be_in_both_splits_but_not_the_same_dialogue(tmp_path: Path) -> None:
    other = [USER | {"text": "my name is tom"}, ASSISTANT]
    check_splits(read_manifest(manifest(tmp_path, row(), held_out(history=other))))
    check_splits(read_manifest(manifest(tmp_path, row(), held_out(persona="you are ivy"))))
    check_splits(read_manifest(manifest(tmp_path, row(next=[]), held_out(history=[]))))
    reworded = [USER | {"text": "My name is Anna."}, ASSISTANT | {"text": "good day"}]
    leaking = read_manifest(manifest(tmp_path, row(), held_out(history=reworded)))
    with pytest.raises(DataError, match="row 2: dialogue with 'what is my name' is in split 'train' too, at row 1"):
        check_splits(leaking)


def test_a_dialogue_that_a_script_leads_to_counts_as_one(tmp_path: Path) -> None:
    history = [USER, ASSISTANT, {"role": "user", "audio": "a.flac", "text": "what is my name"}, ASSISTANT]
    after = held_out(history=history, said="who are you", next=[])
    with pytest.raises(DataError, match="row 2: dialogue with 'who are you' is in split 'train' too, at row 1"):
        check_splits(read_manifest(manifest(tmp_path, row(), after)))
    check_splits(read_manifest(manifest(tmp_path, row(next=[]), after)))
