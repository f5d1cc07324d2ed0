"""`rlhf runs` and `rlhf compare`: what they print, as a table and as JSON."""

import json
import os
import socket
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlhf_platform.cli.main import app
from rlhf_platform.cli.tables import lasting
from tests.runs import AFTER, BEFORE, REFERENCES, evaluation, steps, write_run

runner = CliRunner()


def rlhf(*arguments: str) -> str:
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def test_times_are_told_in_two_units() -> None:
    told = [lasting(seconds) for seconds in (None, 0.4, 59, 60, 710, 3600, 11_100, 180_000)]
    assert told == ["", "0 s", "59 s", "1 min", "11 min 50 s", "1 h", "3 h 5 min", "2 d 2 h"]


def test_runs_are_lines_of_a_table(place: Path) -> None:
    now = time.time()
    write_run(place / "first", status={"started": now - 7000, "updated": now - 6000})
    running = {"state": "running", "phase": "rl", "step": 3, "steps": 30, "pid": os.getpid()}
    run = write_run(place / "second", status={**running, "host": socket.gethostname(), "updated": now, "started": now})
    (run / "results.json").unlink()
    header, _, first, second = rlhf("runs").splitlines()
    columns = ["run", "state", "phase", "step", "started", "took", "WER", "%", "algorithm", "recipe", "last", "word"]
    assert header.split() == columns
    started = time.strftime("%Y-%m-%d %H:%M", time.localtime(now - 7000))
    row = f"first finished done 8/8 {started} 16 min 40 s 36.36 -> 9.09 grpo first 1 h 40 min ago"
    assert first.split() == row.split()
    assert second.split()[:4] == ["second", "running", "rl", "3/30"]


def test_runs_as_json_keep_the_raw_numbers(place: Path) -> None:
    write_run(place / "first", status={"started": 1000.0, "updated": 1700.0, "state": "failed", "error": "no"})
    (run,) = json.loads(rlhf("runs", "--json"))
    assert run | {"seconds_since_update": 0} == {
        "run": "first",
        "recipe": "first",
        "algorithm": "grpo",
        "state": "failed",
        "phase": "done",
        "step": 8,
        "steps": 8,
        "started": 1000.0,
        "updated": 1700.0,
        "seconds": 700.0,
        "seconds_since_update": 0,
        "wer_before": 4 / 11,
        "wer_after": 1 / 11,
        "error": "no",
    }


def test_no_runs_and_no_folder(place: Path) -> None:
    assert runner.invoke(app, ["runs"]).exit_code == 2
    place.mkdir()
    assert rlhf("runs") == "no runs in runs; `rlhf run RECIPE` makes one\n"
    assert rlhf("runs", "--json") == "[]\n"


def test_compare_prints_keys_error_rates_and_metrics(place: Path) -> None:
    write_run(place / "a", metrics=steps([0.1] * 16))
    write_run(place / "b", metrics=steps([0.3] * 16), recipe={"seed": 1}, after=evaluation(BEFORE))
    lines = [line.split() for line in rlhf("compare", "a", "b").splitlines()]
    assert ["seed", "0", "1"] in lines
    (wer,) = (line for line in lines if line[:1] == ["all"])
    assert wer[:5] == ["all", "4", "9.09", "36.36", "+27.27"]
    assert ["reward", "0.1", "0.3", "+0.2", "[+0.2,", "+0.2]"] in lines
    assert any("paired by step" in " ".join(line) for line in lines)


def test_compare_as_json(place: Path) -> None:
    write_run(place / "a", metrics=steps([0.1] * 16))
    write_run(place / "b", metrics=steps([0.3] * 16), recipe={"seed": 1}, after=evaluation(BEFORE))
    found = json.loads(rlhf("compare", "runs/a", "b", "--json"))
    assert found["recipe"] == {"name": {"a": "a", "b": "b"}, "seed": {"a": 0, "b": 1}}
    assert found["heldout"][0]["difference"]["point"] == pytest.approx(3 / 11)
    assert found["training"]["metrics"][0]["difference"]["point"] == pytest.approx(0.2)
    assert found["problems"] == {}


def test_what_cannot_be_compared_is_said_and_the_rest_is_shown(place: Path) -> None:
    write_run(place / "a", metrics=[])
    write_run(place / "b", after=evaluation(AFTER[:3], references=REFERENCES[:3]))
    printed = rlhf("compare", "a", "b")
    assert "Held-out WER: not compared. 'runs/a' and 'runs/b' decoded different clips" in printed
    assert "Training: not compared. runs/a: no RL step" in printed
    assert "name" in printed
    assert set(json.loads(rlhf("compare", "a", "b", "--json"))["problems"]) == {"heldout", "training"}


def test_two_of_the_same_and_one_that_is_not_there(place: Path) -> None:
    write_run(place / "a")
    assert "The recipes are the same." in rlhf("compare", "a", "a")
    result = runner.invoke(app, ["compare", "a", "b"])
    assert (result.exit_code, result.stderr) == (2, "b: no run, it has no status.json; runs in runs: a\n")


def test_reading_runs_imports_no_torch(place: Path) -> None:
    import subprocess
    import sys

    write_run(place / "a", metrics=steps([0.1] * 16))
    program = (
        "import sys; from typer.testing import CliRunner; from rlhf_platform.cli.main import app\n"
        "for arguments in (['runs'], ['compare', 'a', 'a']):\n"
        "    assert CliRunner().invoke(app, arguments).exit_code == 0\n"
        "print([name for name in ('torch', 'ray', 'vllm', 'transformers') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (ended.stdout.strip(), ended.stderr) == ("[]", "")
