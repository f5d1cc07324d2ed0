"""A run on this machine by its folder: how far it is, its log, and how to stop it."""

import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

from rlhf_platform.errors import RunError, WaitTimeout
from rlhf_platform.jobs.report import age
from rlhf_platform.tracking.history import process_lives

STOP_SECONDS = 60.0
"""For a run to note how far it came and to end its processes."""
METRICS_SHOWN = 10
"""Lines of metrics.jsonl that stand for a log."""


def is_run_folder(text: str) -> bool:
    return Path(text, "status.json").is_file()


def read_status(folder: Path) -> dict[str, Any]:
    """`status.json`. Raises RunError when it cannot be read."""
    try:
        status = json.loads((folder / "status.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{folder}: status.json cannot be read ({error}); name a run's folder") from None
    if not isinstance(status, dict):
        raise RunError(f"{folder}: status.json holds no object; name a run's folder")
    return status


def status_lines(folder: Path) -> list[str]:
    """State, phase, step, and the last line of metrics."""
    status = read_status(folder)
    since = f", updated {age(time.time() - status['updated'])} ago" if "updated" in status else ""
    head = f"{folder}: {status.get('state')}, phase {status.get('phase')}, step {status.get('step')}{since}"
    error = [f"  {line}" for line in str(status.get("error", "")).splitlines()]
    dead = status.get("state") == "running" and _is_here(status) and not _is_alive(status)
    gone = [f"  process {status.get('pid')} is gone: the run ended without a word"] if dead else []
    last = _metrics(folder)[-1:]
    return [head, *gone, *error, *(f"  {line}" for line in last)]


def log_lines(folder: Path) -> list[str]:
    """The run's log, else the last lines of its metrics, else a sentence."""
    read_status(folder)
    logs = sorted(folder.glob("*.log"))
    if logs:
        return logs[-1].read_text("utf-8", errors="replace").splitlines()
    return _metrics(folder)[-METRICS_SHOWN:] or [f"{folder}: no log and no metrics yet"]


def stop(folder: Path) -> str:
    """Send a running run SIGTERM and wait until it has noted its end; the state that it then has.

    Raises RunError when its process is not here or not to be had, WaitTimeout when it does not end in `STOP_SECONDS`.
    """
    status = read_status(folder)
    if status.get("state") != "running":
        return str(status.get("state"))
    pid, host = status.get("pid"), status.get("host")
    if pid is None or host is None:
        raise RunError(f"{folder}: status.json names no process (pid, host); stop the run with Ctrl-C where it runs")
    if not _is_here(status):
        raise RunError(f"{folder}: it runs on {host}, this is {socket.gethostname()}; stop it there")
    if not _is_alive(status):
        raise RunError(f"{folder}: process {pid} is gone, no run of ours; nothing is left to stop")
    os.kill(int(pid), signal.SIGTERM)
    expires = time.monotonic() + STOP_SECONDS
    while (state := str(read_status(folder).get("state"))) == "running":
        if not _is_alive(status):
            raise RunError(f"{folder}: process {pid} ended without noting a state")
        if time.monotonic() > expires:
            raise WaitTimeout("rlhf", f"process {pid} of {folder} to end", STOP_SECONDS, "try again, or kill it")
        time.sleep(0.2)
    return state


def _is_here(status: dict[str, Any]) -> bool:
    return status.get("host") == socket.gethostname()


def _is_alive(status: dict[str, Any]) -> bool:
    """Whether the process is there, wrote the status, and is a run of ours."""
    pid = int(status["pid"])
    if not process_lives(pid, float(status.get("updated", 0.0))):
        return False
    try:
        words = Path("/proc", str(pid), "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return False  # it ended just now
    return any(word.startswith("rlhf_platform.") or Path(word).name == "rlhf" for word in words)


def _metrics(folder: Path) -> list[str]:
    file = folder / "metrics.jsonl"
    return file.read_text("utf-8").splitlines() if file.is_file() else []
