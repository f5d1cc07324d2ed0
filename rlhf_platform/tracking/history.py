"""Run folders as their runs left them, or leave them while they run. Nothing here writes, and nothing needs torch."""

import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rlhf_platform.errors import RunError

SILENCE = 3600.0
"""Seconds without a new status.json after which a run that cannot be asked for its process counts as dead."""
_CLOCK_TICKS = 2.0
"""Seconds by which the time that a process started may be off: the kernel counts in ticks."""


@dataclass(frozen=True)
class Run:
    """What a run's folder says."""

    path: Path
    status: Mapping[str, Any]
    recipe: Mapping[str, Any]
    results: Mapping[str, Any]
    """Empty until the run has finished."""

    @property
    def steps(self) -> int | None:
        """RL steps that it is to take."""
        steps = self.status.get("steps", self.recipe.get("steps"))
        return steps if isinstance(steps, int) else None

    def state(self, now: float) -> str:
        """As in status.json; `dead` when that says running and the run is not. `now`: seconds since 1970."""
        said = str(self.status.get("state", "unknown"))
        return "dead" if said == "running" and not self._lives(now) else said

    def seconds(self, now: float) -> float | None:
        """From its start to now while it runs, else to its last word."""
        started, updated = self.status.get("started"), self.status.get("updated")
        if started is None or updated is None:
            return None
        return float((now if self.state(now) == "running" else updated) - started)

    def _lives(self, now: float) -> bool:
        pid, host = self.status.get("pid"), self.status.get("host")
        updated = float(self.status.get("updated", 0.0))
        if isinstance(pid, int) and host in (None, socket.gethostname()):
            return process_lives(pid, updated)
        return now - updated < SILENCE


def process_lives(pid: int, wrote: float) -> bool:
    """Whether the process of this number on this machine is the one that wrote at `wrote` (seconds since 1970).

    A number is given anew when its process has ended, soon after in a container: one that started later is another.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's: it is there
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError):
        return True
    if fields[0] == "Z":
        return False  # it has ended, and nobody has asked how yet
    age = uptime - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    # Below 0 in a container that is told its own uptime: then nothing can be said of the age.
    return age < 0 or time.time() - age <= wrote + _CLOCK_TICKS


def find_runs(parent: Path) -> list[Run]:
    """The runs right below a folder, by the time they started. Raises RunError when there is no such folder."""
    if not parent.is_dir():
        raise RunError(f"{parent}: no such folder; name the folder that holds the runs (runs_dir of their recipes)")
    runs = [read_run(path) for path in sorted(parent.iterdir()) if (path / "status.json").is_file()]
    return sorted(runs, key=lambda run: (run.status.get("started") or 0.0, run.path.name))


def find_run(named: Path, parent: Path) -> Run:
    """The run of a folder, or of a name below `parent`. Raises RunError when neither is one."""
    for path in (named, parent / named):
        if (path / "status.json").is_file():
            return read_run(path)
    there = [path.parent.name for path in sorted(parent.glob("*/status.json"))] if parent.is_dir() else []
    known = f"runs in {parent}: {', '.join(there)}" if there else f"there are none in {parent}"
    raise RunError(f"{named}: no run, it has no status.json; {known}")


def read_run(path: Path) -> Run:
    """Read a run's folder. Raises RunError for a file that is there and cannot be read."""
    return Run(
        path=path,
        status=_mapping(path / "status.json", json.loads),
        recipe=_mapping(path / "recipe.yaml", yaml.safe_load),
        results=_mapping(path / "results.json", json.loads),
    )


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """A line of metrics.jsonl for each RL step, in order; of a step that was taken twice, the last.

    A last line that a kill cut off is left out. Raises RunError for any other line that is not JSON.
    """
    path = run / "metrics.jsonl"
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    steps: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            steps[int(row["step"])] = row
        except (ValueError, KeyError, TypeError):
            if number < len(lines):
                raise RunError(f"{path}: line {number} is not a step's metrics as JSON; mend or remove it") from None
    return [steps[step] for step in sorted(steps)]


def _mapping(path: Path, parse: Any) -> Mapping[str, Any]:
    """The file's mapping, empty when it is not there."""
    if not path.is_file():
        return {}
    try:
        values = parse(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = str(error).partition("\n")[0]
        raise RunError(f"{path}: cannot be read: {reason}; mend it, or move the run's folder away") from None
    if not isinstance(values, dict):
        raise RunError(f"{path}: keys with values are needed, found {type(values).__name__}")
    return values
