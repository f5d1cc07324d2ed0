"""`rlhf status`, `logs` and `stop` of a run on this machine, by its folder, with real processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from rlhf_platform.cli.main import app
from rlhf_platform.jobs import local_run

PROGRAM = """
import json, os, signal, socket, sys, time
from pathlib import Path
folder, ends = Path(sys.argv[1]), sys.argv[2]
def note(state):
    draft = folder / "status.json.new"
    times = {"started": time.time(), "updated": time.time()}
    place = {"pid": os.getpid(), "host": socket.gethostname()}
    draft.write_text(json.dumps({"state": state, "phase": "rl", "step": 3} | times | place))
    draft.replace(folder / "status.json")
def stop(*_):
    if ends == "noting":
        note("interrupted")
    if ends != "never":
        os._exit(130)
signal.signal(signal.SIGTERM, stop)
note("running")
while True:
    time.sleep(0.1)
"""

Start = Callable[..., Path]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a process that notes its status as a run does, and answers SIGTERM in one of three ways."""
    started = []

    def begin(ends: str = "noting", name: str = "rlhf") -> Path:
        # A run shows as `python .../rlhf run ...`; its name is what `stop` goes by.
        script = tmp_path / "bin" / name
        script.parent.mkdir()
        script.write_text(PROGRAM)
        folder = tmp_path / "run"
        folder.mkdir()
        started.append(subprocess.Popen([sys.executable, str(script), str(folder), ends]))
        for _ in range(200):
            if (folder / "status.json").is_file():
                return folder
            time.sleep(0.05)
        raise AssertionError("the process did not start")

    yield begin
    for process in started:
        process.kill()
        process.wait()


def rlhf(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def refused(*arguments: object) -> str:
    result = rlhf(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1
    return result.stderr.rstrip("\n")


def change(folder: Path, **changes: object) -> None:
    status = json.loads((folder / "status.json").read_text()) | changes
    kept = {key: value for key, value in status.items() if value is not None}
    (folder / "status.json").write_text(json.dumps(kept))


def test_stop_ends_a_running_run_and_says_the_state_that_it_noted(start: Start) -> None:
    folder = start()
    for _ in range(2):  # the second time nothing is left to do
        result = rlhf("stop", folder)
        assert (result.exit_code, result.stdout) == (0, f"{folder}: interrupted\n")


def test_status_shows_state_phase_step_and_the_last_metrics(start: Start) -> None:
    folder = start()
    (folder / "metrics.jsonl").write_text('{"step": 2}\n{"step": 3, "reward": 0.5}\n')
    lines = rlhf("status", folder).stdout.splitlines()
    assert lines[0].startswith(f"{folder}: running, phase rl, step 3, updated ")
    assert lines[1:] == ['  {"step": 3, "reward": 0.5}']


def test_logs_are_the_run_s_log_else_its_last_metrics(start: Start) -> None:
    folder = start()
    assert rlhf("logs", folder).stdout == f"{folder}: no log and no metrics yet\n"
    (folder / "metrics.jsonl").write_text("".join(f'{{"step": {n}}}\n' for n in range(1, 21)))
    assert [json.loads(line)["step"] for line in rlhf("logs", folder).stdout.splitlines()] == list(range(11, 21))
    (folder / "run.log").write_text("first\nsecond\n")
    assert rlhf("logs", folder).stdout == "first\nsecond\n"
    assert "--follow is for jobs of a cluster" in refused("logs", folder, "--follow")


def test_a_process_that_is_not_ours_is_left_alone(start: Start) -> None:
    folder = start(name="other")
    pid = json.loads((folder / "status.json").read_text())["pid"]
    assert refused("stop", folder) == f"{folder}: process {pid} is gone, no run of ours; nothing is left to stop"
    os.kill(pid, 0)  # it is there
    assert f"process {pid} is gone: the run ended without a word" in rlhf("status", folder).stdout


def test_a_number_that_a_later_run_has_is_left_alone(start: Start) -> None:
    folder = start()
    change(folder, updated=time.time() - 3600)  # the last word was before the process that has its number
    assert "is gone, no run of ours" in refused("stop", folder)


def test_a_run_on_another_machine_and_one_that_names_no_process_are_refused(start: Start) -> None:
    folder = start()
    change(folder, host="elsewhere")
    assert refused("stop", folder) == f"{folder}: it runs on elsewhere, this is {socket.gethostname()}; stop it there"
    change(folder, pid=None, host=None)
    assert "status.json names no process (pid, host); stop the run with Ctrl-C" in refused("stop", folder)


def test_a_run_that_dies_without_noting_its_end(start: Start) -> None:
    folder = start(ends="silently")
    assert "ended without noting a state" in refused("stop", folder)


def test_a_run_that_does_not_end_is_given_up_after_a_bounded_wait(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = start(ends="never")
    monkeypatch.setattr(local_run, "STOP_SECONDS", 0.5)
    pid = json.loads((folder / "status.json").read_text())["pid"]
    assert refused("stop", folder).startswith(f"rlhf waited 0.5 s for process {pid} of {folder} to end: ")
    os.kill(pid, signal.SIGKILL)


def test_a_folder_that_is_no_run_and_a_status_that_cannot_be_read(tmp_path: Path) -> None:
    assert "no run's folder, it has no status.json" in refused("status", tmp_path)
    (tmp_path / "status.json").write_text("{")
    assert "status.json cannot be read" in refused("status", tmp_path)
