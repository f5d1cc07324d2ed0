"""`rlhf arena`: what it prints, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from typer.testing import CliRunner

from rlhf_platform.cli.main import app
from tests.runs import write_run

JUDGE = """
def words(sample):
    return float(len(sample.speech))
"""


def rlhf(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.stdout, result.stderr


def speak(run: Path, lengths: list[int], label: str = "after_RL") -> None:
    """An evaluation of which prompt i lasts so many samples, 0 for none, and has the length as a score."""
    rows = []
    for number, length in enumerate(lengths):
        wav = f"{label}_{number}.wav"
        sf.write(run / wav, np.zeros(max(1, length)), 16_000)
        row = {"prompt_id": f"p{number}", "text": f"text {number}", "instruction": "", "wav": wav if length else None}
        row |= {"ended": length > 0, "reference": "ref.wav", "metadata": {}, "scores": {"length": length}}
        rows.append(json.dumps(row | {"tokens": [length + 1]}))
    sf.write(run / "ref.wav", np.zeros(800), 16_000)
    (run / f"speech_{label}.jsonl").write_text("\n".join(rows))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("judge.py").write_text(JUDGE)
    speak(write_run(Path("runs/first")), [300, 300, 300, 0])
    speak(write_run(Path("runs/second")), [200, 300, 400, 400])
    speak(Path("runs/first"), [100, 100, 100, 100], "before_RL")
    return tmp_path


@pytest.mark.parametrize("by", [("--score", "length"), ("--judge", "judge.py:words")])
def test_two_runs_are_a_row(by: tuple[str, str], place: Path) -> None:
    code, out, _ = rlhf("arena", "first", "runs/second", *by)
    assert code == 0
    header, _, row = out.splitlines()
    assert " ".join(header.split()) == "A B A wins ties B wins win rate of A, % 95 % interval left out"
    assert row.split()[:6] == ["first", "runs/second", "1", "1", "2", "37.5"]


def test_a_margin_makes_ties_and_a_label_another_system(place: Path) -> None:
    _, out, _ = rlhf("arena", "first", "second", "--score", "length", "--tie-margin", "100")
    assert out.splitlines()[2].split()[:6] == ["first", "second", "0", "3", "1", "37.5"]
    _, out, _ = rlhf("arena", "first:before_RL", "first", "second", "--score", "length")
    rows = [line.split() for line in out.splitlines()]
    assert rows[2][:5] == ["first:before_RL", "first", "1", "0", "3"]
    assert [row[0] for row in rows[-3:]] == ["second", "first", "first:before_RL"]


def test_blind_pairs_need_no_judge(place: Path) -> None:
    code, out, _ = rlhf("arena", "first", "second", "--export", "blind")
    assert (code, out) == (0, "blind: 3 blind pairs; hand out blind/raters, keep key.json\n")
    assert Path("blind/key.json").is_file()
    assert rlhf("arena", "first", "second", "--export", "blind")[0] == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("first", "second"), "give --judge or --score to compare by, or --export"),
        (("first", "second", "--judge", "a:b", "--score", "c"), "--judge is 'a:b' and --score is 'c'; give one"),
        (("first", "--score", "length"), "first: two or more different runs"),
        (("first", "first", "--score", "length"), "first first: two or more different runs"),
        (("first", "third", "--score", "length"), "third: no run"),
        (("first", "second:early", "--score", "length"), "no speech_early.jsonl; labels of its speech evaluations: "),
        (("first", "second", "--score", "wer"), "--score is 'wer': no utterance of first has it; it has length"),
        (("first", "second", "--judge", "judge.py:word"), "judge.py has no 'word'; did you mean 'words'?"),
    ],
)
def test_what_cannot_be_compared_is_one_line(arguments: tuple[str, ...], said: str, place: Path) -> None:
    code, _, message = rlhf("arena", *arguments)
    assert code == 2
    assert said in message
    assert len(message.splitlines()) == 1
