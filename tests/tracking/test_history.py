"""Run folders read back: their state, who is dead, what a kill left half written."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlhf_platform.errors import RunError
from rlhf_platform.tracking.history import SILENCE, find_run, find_runs, process_lives, read_metrics, read_run
from tests.runs import write_run

HOST = socket.gethostname()


def gone() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_runs_come_by_the_time_they_started_and_other_folders_are_not_runs(tmp_path: Path) -> None:
    write_run(tmp_path / "b", status={"started": 1000.0})
    write_run(tmp_path / "a", status={"started": 2000.0})
    (tmp_path / "notes").mkdir()
    (tmp_path / "file").touch()
    assert [run.path.name for run in find_runs(tmp_path)] == ["b", "a"]
    with pytest.raises(RunError, match="no such folder"):
        find_runs(tmp_path / "none")


def test_a_run_that_was_just_made_is_read_without_recipe_or_results(tmp_path: Path) -> None:
    now = time.time()
    status = {"state": "running", "phase": "data", "step": 0, "started": now, "updated": now}
    (tmp_path / "status.json").write_text(json.dumps(status))
    run = read_run(tmp_path)
    assert (run.state(now), run.status["phase"], run.steps, run.results) == ("running", "data", None, {})


def test_steps_are_those_of_the_status_then_of_the_recipe(tmp_path: Path) -> None:
    assert read_run(write_run(tmp_path / "a", recipe={"steps": 30})).steps == 30
    assert read_run(write_run(tmp_path / "b", recipe={"steps": 30}, status={"steps": 12})).steps == 12


def test_a_running_run_whose_process_is_gone_is_dead(tmp_path: Path) -> None:
    now = time.time()
    told = {"state": "running", "updated": now, "started": now - 100.0, "host": HOST}
    alive = read_run(write_run(tmp_path / "alive", status={**told, "pid": os.getpid()}))
    dead = read_run(write_run(tmp_path / "dead", status={**told, "pid": gone()}))
    assert (alive.state(now), dead.state(now)) == ("running", "dead")
    assert (alive.seconds(now + 50), dead.seconds(now + 50)) == pytest.approx((150.0, 100.0))
    finished = read_run(write_run(tmp_path / "finished", status={"pid": gone(), "host": HOST}))
    assert finished.state(now) == "finished"


def test_a_process_that_started_after_the_last_word_is_another(tmp_path: Path) -> None:
    now = time.time()
    assert process_lives(os.getpid(), now)
    assert not process_lives(os.getpid(), now - 7 * 86_400)


def test_without_a_process_to_ask_an_hour_of_silence_is_death(tmp_path: Path) -> None:
    now = time.time()
    for name, known in (("no-pid", {}), ("elsewhere", {"pid": os.getpid(), "host": "another-machine"})):
        told = {"state": "running", **known}
        run = read_run(write_run(tmp_path / name, status={**told, "updated": now - SILENCE + 60}))
        assert run.state(now) == "running"
        assert run.state(now + 120) == "dead"


def test_a_run_is_found_by_folder_or_by_name_and_a_wrong_name_lists_the_others(tmp_path: Path) -> None:
    path = write_run(tmp_path / "runs" / "first")
    assert find_run(path, Path("elsewhere")).path == path
    assert find_run(Path("first"), tmp_path / "runs").path == path
    with pytest.raises(RunError, match=r"frist: no run, .* runs in .*: first"):
        find_run(Path("frist"), tmp_path / "runs")


def test_metrics_leave_out_the_line_that_a_kill_cut_off_and_keep_the_last_of_a_step(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r", metrics=[{"step": s, "reward": r} for s, r in ((1, 0.1), (2, 0.2), (2, 0.3))])
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "rew')
    assert [(row["step"], row["reward"]) for row in read_metrics(run)] == [(1, 0.1), (2, 0.3)]
    (run / "metrics.jsonl").write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(RunError, match="line 2"):
        read_metrics(run)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r")
    (run / "results.json").write_text(json.dumps([1]))
    with pytest.raises(RunError, match=r"results\.json: keys with values"):
        read_run(run)
    (run / "results.json").write_text("{")
    with pytest.raises(RunError, match=r"results\.json: cannot be read"):
        read_run(run)
