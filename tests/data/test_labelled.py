import json
from pathlib import Path
from typing import Any

import pytest

from rlhf_platform.data.labelled import Labelled, read_labelled, write_labelled
from rlhf_platform.errors import DataError

USER, ASSISTANT = {"role": "user", "text": "my name is anna"}, {"role": "assistant", "text": "hello anna"}


def values(**changes: Any) -> dict[str, Any]:
    good = {"id": "1", "persona": "you are max", "history": [USER, ASSISTANT], "said": "what is my name"}
    good |= {"a": "your name is tom", "b": "your name is anna", "better": "b", "criterion": "memory"}
    return good | {"split": "calibration"} | changes


def labelled(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "judge.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_pair_is_read_with_every_key_and_written_back(tmp_path: Path) -> None:
    pairs = read_labelled(labelled(tmp_path, values()))
    assert pairs == [
        Labelled(
            id="1",
            persona="you are max",
            history=(("user", "my name is anna"), ("assistant", "hello anna")),
            said="what is my name",
            a="your name is tom",
            b="your name is anna",
            better="b",
            criterion="memory",
            split="calibration",
        )
    ]
    write_labelled(tmp_path / "again.jsonl", pairs)
    assert json.loads((tmp_path / "again.jsonl").read_text()) == values()
    assert read_labelled(tmp_path / "again.jsonl") == pairs


def test_one_split_is_read_alone(tmp_path: Path) -> None:
    tie = values(id="2", better="tie", criterion="", split="heldout")
    path = labelled(tmp_path, values(), tie)
    assert [pair.id for pair in read_labelled(path, "heldout")] == ["2"]
    with pytest.raises(DataError, match="no labelled replies of split 'train'; it has calibration, heldout"):
        read_labelled(path, "train")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bettr": "a"}, "unknown key 'bettr'; did you mean 'better'?"),
        ({"zzz": 1}, "unknown key 'zzz'; it has id, persona"),
        ({"said": ""}, "said is empty"),
        ({"a": None}, "a is text, not null None"),
        ({"better": "c"}, "better is 'c'; allowed are a, b, tie"),
        ({"split": "dev"}, "split is 'dev'; allowed are train, calibration, heldout"),
        ({"criterion": "taste"}, "criterion is 'taste'; allowed are persona, memory"),
        ({"better": "tie"}, "a tie has no criterion; leave it empty"),
        ({"a": "your name is anna"}, "a and b are the same reply 'your name is anna'; call it a tie"),
        ({"history": "none"}, "history is a list, not text"),
        ({"history": [USER, USER]}, "history turn 2 is of role 'user', not 'assistant'; turns alternate"),
        ({"history": [ASSISTANT]}, "history turn 1 is of role 'assistant', not 'user'"),
        ({"history": [USER]}, "history ends with a user, at turn 1"),
        ({"history": [USER, ASSISTANT | {"tokens": [1]}]}, "history turn 2 is not an object of role and text"),
        ({"history": [USER | {"text": " "}, ASSISTANT]}, "history turn 1: text is ' '"),
        ({"id": "1"}, "id '1' is that of an earlier row"),
    ],
)
def test_a_bad_pair_is_refused_by_row(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = labelled(tmp_path, values(), values(id="2") | changes)
    with pytest.raises(DataError) as error:
        read_labelled(path)
    first, second = str(error.value).splitlines()
    assert first == f"{path}: 1 row cannot be used"
    assert second.startswith(f"judge.jsonl row 2: {message}")


def test_a_missing_key_a_bad_line_and_an_empty_file_are_refused(tmp_path: Path) -> None:
    path = labelled(tmp_path, {"id": "1"})
    path.write_bytes(path.read_bytes() + b"{\n[]\n\xff\n")
    with pytest.raises(DataError) as error:
        read_labelled(path)
    lines = str(error.value).splitlines()
    assert [line.split("row ")[1][:5] for line in lines[1:]] == [
        "1: no",
        "2: no",
        "3: a ",
        "4: no",
    ]
    path.write_text("\n")
    with pytest.raises(DataError, match="no labelled replies; it has no rows at all"):
        read_labelled(path)
    with pytest.raises(DataError, match="no such file of labelled replies"):
        read_labelled(tmp_path / "gone.jsonl")
