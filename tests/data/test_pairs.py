"""Files of judged answers: what is read, what is refused, each with its line."""

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf_platform.data.pairs import (
    Answer,
    Opinion,
    Origin,
    Pair,
    above_margin,
    check_clips,
    check_prompts,
    opinions,
    read_pairs,
    write_pairs,
)
from rlhf_platform.errors import DataError
from rlhf_platform.recipe.preferences import DPO, KTO, RewardModel
from rlhf_platform.types import Prompt

ROW: dict[str, Any] = {
    "audio": "a.wav",
    "text": "seven",
    "language": "en",
    "duration": 1.5,
    "chosen": "seven",
    "rejected": "eleven",
}
SINGLE = {key: value for key, value in ROW.items() if key not in ("chosen", "rejected")}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "a.wav").touch()
    (tmp_path / "b.wav").touch()
    return tmp_path / "pairs.jsonl"


def write(file: Path, *rows: Any) -> Path:
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return file


def test_a_row_is_a_prompt_with_two_answers(file: Path) -> None:
    full = ROW | {"id": "x", "speaker": "s", "metadata": {"k": 1}, "margin": 2, "split": "train", "licence": "MIT"}
    (pair,) = read_pairs(write(file, full), DPO())
    prompt = Prompt("x", str(file.with_name("a.wav")), "seven", "en", "s", 1.5, {"k": 1})
    assert pair == Pair(1, prompt, Answer("seven"), Answer("eleven"), 2.0)


def test_answers_may_be_tokens_or_codec_indices(file: Path) -> None:
    tokens = ROW | {"chosen_tokens": [4, 5], "rejected_tokens": [4]}
    codec = {**SINGLE, "chosen_codec": [0, 3], "rejected_codec": [2]}
    found = read_pairs(write(file, tokens, "", codec), DPO())
    assert [(p.number, p.chosen, p.rejected) for p in found] == [
        (1, Answer("seven", (4, 5)), Answer("eleven", (4,))),
        (3, Answer(codec=(0, 3)), Answer(codec=(2,))),
    ]


def test_the_same_words_in_other_tokens_are_two_answers(file: Path) -> None:
    cut = ROW | {"rejected": "seven", "chosen_tokens": [4, 5], "rejected_tokens": [4]}
    assert len(read_pairs(write(file, cut))) == 1


def test_kto_takes_labelled_answers_and_pairs_apart(file: Path) -> None:
    found = read_pairs(write(file, SINGLE | {"completion": "seven", "label": True}, ROW), KTO())
    assert isinstance(found[0], Opinion)
    assert [(o.number, o.completion.text, o.label) for o in opinions(found)] == [
        (1, "seven", True),
        (2, "seven", True),
        (2, "eleven", False),
    ]


def test_what_is_written_is_read_back(file: Path) -> None:
    prompt = Prompt("x", str(file.with_name("a.wav")), "seven", "en", "s", 1.5, {"k": [1]})
    rows = [
        Pair(1, prompt, Answer("seven", (1, 2)), Answer("one", (3,)), margin=0.25),
        Pair(2, prompt, Answer("", (9,)), Answer("b"), tie=True),
        Pair(3, prompt, Answer(codec=(1,)), Answer(codec=(2, 0))),
    ]
    elsewhere = file.parent / "deeper" / "round_1.jsonl"
    write_pairs(elsewhere, rows)
    assert read_pairs(elsewhere, RewardModel(tie_threshold=0.5)) == rows
    assert json.loads(elsewhere.read_text().splitlines()[0])["audio"] == "../a.wav"
    write_pairs(elsewhere, [Opinion(1, prompt, Answer("seven"), False)])
    assert read_pairs(elsewhere, KTO()) == [Opinion(1, prompt, Answer("seven"), False)]


def test_who_judged_and_what_was_heard_are_kept(file: Path) -> None:
    origin = {"source": "human", "rater": "anna", "reason": "the other clips"}
    heard = ROW | {"chosen_audio": "b.wav", "rejected_audio": "a.wav"}
    good = SINGLE | {"completion": "seven", "label": True, "completion_audio": "b.wav", "source": "rollout"}
    rows = read_pairs(write(file, heard | origin, good))
    pair, opinion = rows
    assert isinstance(pair, Pair)
    assert isinstance(opinion, Opinion)
    a, b = str(file.with_name("a.wav")), str(file.with_name("b.wav"))
    assert (pair.origin, pair.chosen.audio, pair.rejected.audio) == (Origin("human", "anna", "the other clips"), b, a)
    assert (opinion.origin, opinion.completion.audio) == (Origin("rollout"), b)
    assert [o.origin.rater for o in opinions([pair])] == ["anna", "anna"]

    elsewhere = file.parent / "deeper" / "pairs.jsonl"
    write_pairs(elsewhere, rows)
    first, second = map(json.loads, elsewhere.read_text().splitlines())
    assert origin.items() <= first.items()
    assert (first["chosen_audio"], first["rejected_audio"]) == ("../b.wav", "../a.wav")
    assert (second["completion_audio"], second["source"]) == ("../b.wav", "rollout")
    assert read_pairs(elsewhere) == rows


def test_a_row_without_an_origin_is_written_without_one(file: Path) -> None:
    write_pairs(file, read_pairs(write(file, ROW)))
    assert set(json.loads(file.read_text())) == {*ROW, "id", "speaker"}


def test_prompts_that_a_manifest_does_not_have_are_told(file: Path) -> None:
    rows = read_pairs(write(file, ROW | {"id": "x"}, ROW | {"id": "y"}, ROW | {"id": "z"}))
    check_prompts(file, rows, {"x", "y", "z"})
    with pytest.raises(DataError) as error:
        check_prompts(file, rows, {"y"})
    said = "is not in the manifest; give the row the `id` of its prompt there, or leave it out"
    assert str(error.value).splitlines() == [
        f"{file}: 2 rows cannot be used",
        f"pairs.jsonl row 1: id 'x' {said}",
        f"pairs.jsonl row 3: id 'z' {said}",
    ]


def test_pairs_below_a_margin_and_ties_are_left_out(file: Path) -> None:
    rows = read_pairs(write(file, ROW | {"margin": 0.5}, ROW | {"margin": 0.4}, ROW | {"tie": True}))
    pairs = [row for row in rows if isinstance(row, Pair)]
    assert [pair.number for pair in above_margin(pairs, 0.5)] == [1]
    assert [pair.number for pair in above_margin(pairs, 0.0)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{", "not JSON: Expecting property name enclosed in double quotes at column 2"),
        ("[1]", "a row is a JSON object, not list"),
        (ROW | {"choosen": "x"}, "unknown key 'choosen'; did you mean 'chosen'?"),
        ({"audio": "a.wav"}, "no 'text'; every row has audio, text, language, duration, as in a manifest"),
        (ROW | {"duration": "1"}, "duration is number, not text '1'"),
        (ROW | {"duration": 0}, "duration 0 s; it must be above 0"),
        (ROW | {"language": " "}, "language is empty"),
        (ROW | {"audio": "c.wav"}, "audio 'c.wav' does not exist; paths are relative to the folder of the file"),
        (SINGLE, "no 'chosen'; a row has chosen and rejected, or completion and label"),
        (SINGLE | {"chosen": "a"}, "no 'rejected'; a row has chosen and rejected, or completion and label"),
        (SINGLE | {"completion": "a"}, "no 'label'; a row with completion says true (good) or false (bad)"),
        (SINGLE | {"label": True}, "no 'completion'; a row has chosen and rejected, or completion and label"),
        (
            SINGLE | {"completion": "a", "label": True, "margin": 1},
            "margin is a key of pairs; a row with completion and label has none",
        ),
        (ROW | {"chosen_codec": [1]}, "chosen and chosen_codec are given; give one of them"),
        (ROW | {"chosen_tokens": []}, "chosen_tokens is a list of whole numbers, at least 0 each and one in all"),
        (
            ROW | {"rejected_tokens": [1.5]},
            "rejected_tokens is a list of whole numbers, at least 0 each and one in all",
        ),
        (ROW | {"rejected": "seven"}, "chosen and rejected are the same answer; leave the row out"),
        (ROW | {"rejected": "seven", "tie": True}, "chosen and rejected are the same answer; leave the row out"),
        (
            ROW | {"chosen_tokens": [1, 2], "rejected_tokens": [1, 2]},
            "chosen and rejected are the same answer; leave the row out",
        ),
        (
            SINGLE | {"chosen_codec": [3], "rejected_codec": [3], "rejected_audio": "b.wav"},
            "chosen and rejected are the same answer; leave the row out",
        ),
        (
            ROW | {"rejected_audio": "c.wav"},
            "rejected_audio 'c.wav' does not exist; paths are relative to the folder of the file",
        ),
        (ROW | {"rater": 3}, "rater is text, not whole number 3"),
        (
            ROW | {"completion_audio": "a.wav"},
            "no 'completion'; a row has chosen and rejected, or completion and label",
        ),
        (ROW | {"margin": -1}, "margin -1; it is how much better the chosen answer is, at least 0"),
        (ROW | {"margin": 1, "tie": True}, "margin says that one is better, tie that none is; give one of them"),
        (ROW | {"tie": True}, "tie is true: dpo learns nothing from ties; leave the row out"),
        (
            SINGLE | {"completion": "seven", "label": True},
            "completion and label are learnt by kto, dpo learns from pairs",
        ),
    ],
)
def test_a_bad_row_is_told_with_its_line(row: Any, said: str, file: Path) -> None:
    with pytest.raises(DataError) as error:
        read_pairs(write(file, ROW, row), DPO())
    assert str(error.value) == f"{file}: 1 row cannot be used\npairs.jsonl row 2: {said}"


def test_all_bad_rows_are_told_at_once(file: Path) -> None:
    with pytest.raises(DataError) as error:
        read_pairs(write(file, "{}", ROW, ROW | {"margin": -2}, ROW | {"audio": "b.wav", "id": "a"}), DPO())
    assert str(error.value).splitlines() == [
        f"{file}: 3 rows cannot be used",
        "pairs.jsonl row 1: no 'audio'; every row has audio, text, language, duration, as in a manifest",
        "pairs.jsonl row 3: margin -2; it is how much better the chosen answer is, at least 0",
        "pairs.jsonl row 4: id 'a' is that of row 2, whose prompt is another; give each prompt its own `id`",
    ]


def test_ties_need_a_threshold(file: Path) -> None:
    write(file, ROW | {"tie": True})
    with pytest.raises(DataError, match=r"row 1: tie is true, and algorithm\.tie_threshold is 0; set it, to 0\.69"):
        read_pairs(file, RewardModel())
    assert len(read_pairs(file, RewardModel(tie_threshold=0.69))) == 1


def test_no_rows_and_no_file_are_refused(file: Path) -> None:
    with pytest.raises(DataError, match=r"pairs\.jsonl: no such file of pairs; name a JSONL file"):
        read_pairs(file, DPO())
    with pytest.raises(DataError, match=r"pairs\.jsonl: empty: a file of pairs has one JSON object per line"):
        read_pairs(write(file), DPO())


def test_each_clip_is_decoded_once_and_named_by_its_row(file: Path, clips: list[Prompt]) -> None:
    wrong = Prompt("w", clips[0].audio, "seven", "en", duration=9.0)
    rows = [Pair(n, p, Answer("a"), Answer("b")) for n, p in enumerate([clips[1], clips[1], wrong], start=1)]
    seen: list[tuple[int, int]] = []
    with pytest.raises(DataError, match=r"row 3: duration 9 s, but clip0\.wav lasts 0\.400 s"):
        check_clips(file, rows, 4.0, lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
