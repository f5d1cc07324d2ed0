"""`runs/<name>/`: the recipe as run, the metrics, how far it came, what came out."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class RunDir:
    """One run's folder. A name that is taken gets a number, so that no run overwrites another.

    recipe.yaml   the resolved recipe
    status.json   state (running, finished, failed, interrupted), phase, step: current at any time
    metrics.jsonl one JSON object a step
    """

    def __init__(self, parent: Path, name: str) -> None:
        self.path = _fresh(parent, name)
        self._status: dict[str, Any] = {
            "state": "running",
            "phase": "start",
            "step": 0,
            "started": time.time(),
        }

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint"

    def status(self, **changes: Any) -> None:
        """Note how far the run is; written whole or not at all, so that a kill leaves the last one readable."""
        self._status |= changes | {"updated": time.time()}
        draft = self.path / "status.json.new"
        draft.write_text(json.dumps(self._status, indent=1))
        draft.replace(self.path / "status.json")

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line to metrics.jsonl."""
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, "time": time.time(), **values}) + "\n")

    def write(self, name: str, text: str) -> None:
        (self.path / name).write_text(text)


def _fresh(parent: Path, name: str) -> Path:
    number = 1
    while True:
        path = parent / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return path.resolve()
