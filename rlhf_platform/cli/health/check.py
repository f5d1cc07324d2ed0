"""What a check of `rlhf doctor` answers, and how it asks another process."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"
    """Runs work, slower or only some of them."""
    FAIL = "fail"
    """A run would fail."""


@dataclass(frozen=True)
class Check:
    """One line of the doctor's table."""

    name: str
    status: Status
    found: str
    way_out: str = ""


def ask(probe: str, *arguments: str, seconds: float) -> dict[str, Any]:
    """The answer of a function of `health.probes`, called in a process of its own, or `{"error": why}`.

    In a process of its own, since a library that does not fit this machine can end or hang the one that imports it.
    """
    command = [sys.executable, "-m", "rlhf_platform.cli.health.probes", probe, *arguments]
    # A session of its own, so that what the probe starts ends with it.
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            answer, complaint = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            return {"error": f"no answer within {seconds:g} s"}
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    try:
        found: dict[str, Any] = json.loads(answer)
    except ValueError:
        lines = complaint.strip().splitlines() or ["it said nothing"]
        return {"error": f"the process ended with status {process.returncode}: {lines[-1]}"}
    return found
