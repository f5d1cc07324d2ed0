"""`rlhf pairs import` and `rlhf pairs show`."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlhf_platform.cli.main import app
from rlhf_platform.data.blind_key import BlindPair, Side, write_key
from rlhf_platform.data.pairs import Answer
from rlhf_platform.types import Prompt

# The system "old" is side a of the odd pairs, "new" of the even ones.
ANNA = "1,anna,b,\n2,anna,a,clear\n3,anna,b,\n4,anna,tie,\n"
BEN = "1,ben,b,\n2,ben,a,\n3,ben,a,\n4,ben,tie,\n"
HEADER = "pair,rater,answer,reason\n"


def rlhf(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("ref", "old", "new"):
        Path(f"{name}.wav").touch()
    key = {}
    for number in range(1, 5):
        prompt = Prompt(f"p{number}", str(tmp_path / "ref.wav"), "seven", "en", duration=1.5)
        old, new = (
            Side(name, Answer(tokens=(token, number), audio=str(tmp_path / f"{name}.wav")))
            for name, token in (("old", 0), ("new", 1))
        )
        key[str(number)] = BlindPair(prompt, *((old, new) if number % 2 else (new, old)))
    write_key(tmp_path / "key.json", key)
    Path("anna.csv").write_text(HEADER + ANNA)
    Path("ben.csv").write_text(HEADER + BEN)
    return tmp_path


def test_ratings_are_summed_up_and_become_pairs(place: Path) -> None:
    code, out, _ = rlhf("pairs", "import", "anna.csv", "ben.csv", "--key", "key.json", "--out", "pairs.jsonl")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "8 ratings of 2 raters: 4 pairs, 2 of them ties"
    # By hand: a, tie, b are 3, 2, 3 times there; ordinal distances 6.25, 6.25 and 25, and a against b is observed once.
    assert lines[1].startswith(f"agreement of raters (Krippendorff's alpha): {1 - 50 * 7 / 600:.2f}, 95 % interval [")
    assert lines[5].split()[:6] == ["new", "old", "2", "2", "0", "75.0"]
    assert lines[-1] == "pairs.jsonl: 4 rows, 2 of them ties"
    rows = [json.loads(line) for line in Path("pairs.jsonl").read_text().splitlines()]
    assert [row["chosen_tokens"] for row in rows[:2]] == [[1, 1], [1, 2]]
    assert rows[1] | {"reason": "anna: clear", "rater": "anna, ben", "chosen_audio": "new.wav"} == rows[1]
    assert [row.get("tie", False) for row in rows] == [False, False, True, True]


def test_ties_may_be_left_out_and_nothing_need_be_written(place: Path) -> None:
    _, out, _ = rlhf("pairs", "import", "anna.csv", "--key", "key.json", "--out", "p.jsonl", "--margin", "0.5")
    assert "none, no item has ratings of two raters" in out
    assert out.splitlines()[-1] == "p.jsonl: 3 rows, 0 of them ties"
    code, _, message = rlhf("pairs", "import", "anna.csv", "--key", "key.json", "--out", "q.jsonl", "--margin", "2")
    assert (code, message) == (2, "no pair to write: none of 4 has a margin of 2 or more; lower --margin\n")
    assert rlhf("pairs", "import", "anna.csv", "--key", "key.json")[0] == 0
    assert sorted(path.name for path in place.glob("*.jsonl")) == ["p.jsonl"]


def test_a_file_is_shown_with_the_agreement_of_its_raters(place: Path) -> None:
    imported = ("pairs", "import", "anna.csv", "ben.csv", "--key", "key.json", "--out", "pairs.jsonl", "--each-rater")
    said = rlhf(*imported)[1].splitlines()[1]
    code, out, _ = rlhf("pairs", "show", "pairs.jsonl")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "pairs.jsonl: 8 pairs, 2 of them ties; of 4 prompts"
    assert lines[4].split()[:4] == ["human", "8", "2", "1"]
    # Which side is a is another here, so chance is: old, tie, new are 1, 2 and 5 times there.
    # Ordinal distances (1+2-3/2)^2, (2+5-7/2)^2, (1+2+5-3)^2; one pair differs, by the last.
    expected = 2 * (1 * 2 * 1.5**2 + 2 * 5 * 3.5**2 + 1 * 5 * 5**2) / 7
    assert lines[-1].startswith("agreement of raters (Krippendorff's alpha): 0.")
    assert f"{1 - 2 * 5**2 / expected:.2f}" in lines[-1]
    assert said != lines[-1]


def test_sources_are_counted_each(place: Path) -> None:
    row = {"audio": "ref.wav", "text": "seven", "language": "en", "duration": 1.5}
    pair = row | {"chosen": "seven", "rejected": "eleven"}
    rows = [pair | {"margin": 1, "source": "rollout"}, pair | {"margin": 3, "source": "rollout"}]
    rows += [pair, row | {"completion": "seven", "label": True, "source": "human"}]
    Path("mixed.jsonl").write_text("\n".join(map(json.dumps, rows)))
    code, out, _ = rlhf("pairs", "show", "mixed.jsonl")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "mixed.jsonl: 3 pairs, 0 of them ties; 1 labelled; of 1 prompt"
    assert [" ".join(line.split()) for line in lines[4:]] == [
        "rollout 2 0 2 1 1 1.5 2 2.5 3 █ █",
        "not said 1 0 0 0 0 0 0 0 0",
        "human 1 0",
    ]


def test_a_bad_file_is_told_with_its_rows(place: Path) -> None:
    Path("bad.csv").write_text(HEADER + "9,anna,a,\n")
    code, _, message = rlhf("pairs", "import", "bad.csv", "--key", "key.json")
    assert (code, message.splitlines()[1:]) == (2, ["bad.csv row 2: pair '9' is not in the key"])
    code, _, message = rlhf("pairs", "show", "none.jsonl")
    assert code == 2
    assert "no such file of pairs" in message
    code, _, message = rlhf("pairs", "import", "anna.csv", "--key", "none.json")
    assert code == 2
    assert "none.json: no such key" in message
