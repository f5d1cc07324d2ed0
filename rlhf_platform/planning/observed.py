"""What is known from disk: the clips that RL draws from, and how long the phases of an earlier run took."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from rlhf_platform.data import demo
from rlhf_platform.data.manifest import of_split, read_manifest
from rlhf_platform.recipe.schema import Recipe

LAST_STEPS = 20
"""Steps of an earlier run that are averaged: its latest, since the first ones warm up."""


@dataclass(frozen=True)
class Clips:
    """The split that RL draws from."""

    number: int
    mean_seconds: float
    longest_seconds: float


@dataclass(frozen=True)
class EarlierRun:
    """A run of the same name."""

    path: Path
    steps: int
    """That were averaged."""
    seconds: Mapping[str, float]
    """Mean wall time of each phase, s."""
    completion_tokens: float | None
    """Mean length."""

    @property
    def bottleneck(self) -> str:
        return max(self.seconds, key=lambda phase: self.seconds[phase])


def clips_of(recipe: Recipe) -> Clips | None:
    """None while the manifest is not there. Raises DataError when it cannot be read."""
    if recipe.data.manifest:
        path = Path(recipe.data.manifest)
    elif recipe.data.demo:
        path = demo.folder_of(recipe.data.demo, recipe.cache_dir) / "manifest.jsonl"
    else:
        return None
    if not path.is_file():
        return None
    seconds = [row.duration for row in of_split(read_manifest(path), recipe.data.rl_split)]
    return Clips(len(seconds), fmean(seconds), max(seconds)) if seconds else None


def earlier_run(recipe: Recipe) -> EarlierRun | None:
    """The newest run of the recipe's name that got as far as an RL step."""
    parent = Path(recipe.runs_dir)
    named = [parent / recipe.name, *parent.glob(f"{recipe.name}-[0-9]*")]
    written = [path / "metrics.jsonl" for path in named if (path / "metrics.jsonl").is_file()]
    for file in sorted(written, key=lambda path: path.stat().st_mtime, reverse=True):
        rows = [row for line in file.read_text().splitlines() if (row := _row(line))][-LAST_STEPS:]
        if not rows:
            continue
        names = [name for name in rows[-1] if name.startswith("seconds/")]
        seconds = {name.removeprefix("seconds/"): fmean(row.get(name, 0.0) for row in rows) for name in names}
        lengths = [row["completion_tokens"] for row in rows if "completion_tokens" in row]
        return EarlierRun(file.parent, len(rows), seconds, fmean(lengths) if lengths else None)
    return None


def _row(line: str) -> dict[str, float]:
    """The metrics of an RL step; empty for a line of another kind, or cut short by a kill."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return row if isinstance(row, dict) and "seconds/rollout" in row else {}
