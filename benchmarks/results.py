"""How a benchmark writes down what it found."""

import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
# A script's own folder is searched first, and benchmarks/rollout.py is not the package `rollout`.
sys.path.insert(0, str(ROOT))


def write_results(name: str, figures: Mapping[str, Any], quick: bool) -> Path:
    """Write `benchmarks/results/NAME.json`, or `NAME.quick.json`; returns the path."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    changed = subprocess.run(
        ["git", "status", "--porcelain", "-uno"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    record = {
        "command": shlex.join(["python", *sys.argv]),
        "commit": commit.strip() + (" with changes" if changed else ""),
        "machine": f"{psutil.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, {platform.machine()}",
        "python": platform.python_version(),
        "figures": figures,
    }
    path = ROOT / "benchmarks" / "results" / f"{name}{'.quick' if quick else ''}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path
