"""Whole runs of a recipe from the command line, timed, with the memory of all their processes watched."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from results import ROOT

from rlhf_platform.evaluation.report import EvalResult


@dataclass(frozen=True)
class Run:
    """One finished run."""

    folder: Path
    minutes: float
    peak_gib: float

    def evaluation(self, when: str) -> EvalResult:
        return EvalResult.from_json((self.folder / f"evaluation_{when}_RL.json").read_text())

    @property
    def results(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "results.json").read_text())
        return found


def run(recipe: str, name: str, scratch: Path, keys: Sequence[str]) -> Run:
    """`rlhf run recipes/RECIPE` in a process of its own; cache and runs lie in `scratch`."""
    places = [f"name={name}", f"cache_dir={scratch / 'cache'}", f"runs_dir={scratch / 'runs'}"]
    path = str(ROOT / "recipes" / recipe)
    start = time.monotonic()
    command = [sys.executable, "-m", "rlhf_platform.cli.main", "run", path, *places, *keys]
    process = subprocess.Popen(command, cwd=ROOT)
    peak = [0.0]
    watcher = threading.Thread(target=watch, args=(psutil.Process(process.pid), peak), daemon=True)
    watcher.start()
    if process.wait() != 0:
        sys.exit(f"{name} ended with code {process.returncode}")
    return Run(scratch / "runs" / name, (time.monotonic() - start) / 60, peak[0])


def watch(process: psutil.Process, peak: list[float]) -> None:
    """Keep the largest sum over the process tree of proportional set sizes: shared pages count once."""
    while process.is_running():
        total = 0
        try:
            for member in [process, *process.children(recursive=True)]:
                try:
                    total += member.memory_full_info().pss
                except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                    continue  # ended between listing and reading
        except psutil.NoSuchProcess:
            return
        peak[0] = max(peak[0], total / 2**30)
        time.sleep(10)  # summing the sizes costs a noticeable part of a core
