"""`runs/<name>/`: the recipe as run, the metrics, how far it came, what came out."""

import fcntl
import json
import os
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from rlhf_platform.errors import RunError
from rlhf_platform.tracking.history import read_metrics
from rlhf_platform.types import Failed, ScoredSample


class RunDir:
    """One run's folder, held by one process at a time.

    recipe.yaml   the resolved recipe
    rewards/      the reward files that it names
    status.json   state (running, finished, failed, interrupted), phase, step, process: current at any time
    metrics.jsonl one JSON object a step
    prompts.jsonl the prompts that each step drew
    failures.jsonl the samples that have no reward, and why
    """

    def __init__(self, path: Path, status: Mapping[str, Any]) -> None:
        """Raises RunError when another process holds the folder."""
        self.path = path
        # The kernel lets go of the lock however the process ends.
        self._lock = (path / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = f"process {status.get('pid')} on {status.get('host')}"
            raise RunError(f"{path}: still run by {who}; stop it first (rlhf stop {path})") from None
        mine = {"state": "running", "phase": "start", "pid": os.getpid(), "host": socket.gethostname()}
        self._status: dict[str, Any] = {**status, **mine}
        self._status.pop("error", None)

    @classmethod
    def create(cls, parent: Path, name: str, steps: int) -> Self:
        """A new folder. A name that is taken gets a number, so that no run overwrites another.

        Raises RunError when it cannot be made.
        """
        return cls(_fresh(parent, name), {"step": 0, "steps": steps, "started": time.time()})

    @classmethod
    def reopen(cls, path: Path) -> Self:
        """The folder of a run that is to go on; nothing in it is changed yet. Raises RunError as above."""
        return cls(path, json.loads((path / "status.json").read_text()))

    def rewind(self, step: int, steps: int) -> None:
        """Take out what was written of the steps after `step`. `steps`: that the run is to take."""
        self._status |= {"step": step, "steps": steps}
        self._rewrite("metrics.jsonl", [row for row in self.history() if row["step"] <= step])
        for name in ("prompts.jsonl", "failures.jsonl"):
            if (self.path / name).is_file():
                self._rewrite(name, [row for row in _rows(self.path / name) if row["step"] <= step])

    def release(self) -> None:
        """Let another process have the folder."""
        self._lock.close()

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint"

    def status(self, **changes: Any) -> None:
        """Note how far the run is; written whole or not at all, so that a kill leaves the last one readable."""
        self._status |= changes | {"updated": time.time()}
        self.write("status.json", json.dumps(self._status, indent=1))

    def step(
        self, step: int, metrics: Mapping[str, float], prompts: Sequence[str], failed: Sequence[ScoredSample] = ()
    ) -> None:
        """Append a step to metrics.jsonl, prompts.jsonl and failures.jsonl. `prompts`: ids of those it drew."""
        self._append("prompts.jsonl", {"step": step, "prompts": list(prompts)})
        for scored in failed:
            self._append("failures.jsonl", {"step": step, **_failure(scored)})
        self._append("metrics.jsonl", {"step": step, "time": time.time(), **metrics})

    def history(self) -> list[dict[str, Any]]:
        """The metrics of the steps so far."""
        return read_metrics(self.path)

    def keep(self, files: Mapping[str, Path]) -> None:
        """Copy files into the folder, each to the path in it that is its key."""
        for name, source in files.items():
            target = self.path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)

    def write(self, name: str, text: str) -> None:
        """A file, whole or not at all."""
        draft = self.path / f"{name}.new"
        draft.write_text(text, "utf-8")
        draft.replace(self.path / name)

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        with (self.path / name).open("a") as file:
            file.write(json.dumps(row) + "\n")

    def _rewrite(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        self.write(name, "".join(json.dumps(row) + "\n" for row in rows))


def portable(recipe: str, folder: Path) -> str:
    """A recipe as YAML whose paths in the run's folder are relative to it, so that the folder may be moved."""
    return recipe.replace(f"{folder}/", "")


def _failure(scored: ScoredSample) -> dict[str, Any]:
    """What a person needs to find out why."""
    sample, outcome = scored.sample, scored.outcome
    assert isinstance(outcome, Failed)
    return {
        "reward": outcome.term,
        "kind": outcome.kind,
        "message": outcome.message,
        "prompt": sample.prompt.id,
        "audio": sample.prompt.audio,
        "reference": sample.prompt.reference,
        "text": sample.text,
    }


def _rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a JSONL file; one that a kill cut off, the last, is left out."""
    lines = path.read_text().split("\n")[:-1] if path.is_file() else []
    return [json.loads(line) for line in lines]


def _fresh(parent: Path, name: str) -> Path:
    number = 1
    while True:
        path = parent / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
        except OSError as error:
            raise RunError(
                f"runs_dir is {str(parent)!r}: {error.strerror}; name a folder that can be written"
            ) from None
        else:
            return path.resolve()
