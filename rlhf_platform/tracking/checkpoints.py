"""The checkpoints of a run: each is whole, or it is not there. `checkpoints/step-00010/` holds

policy/         the model in Hugging Face layout
learner/        DeepSpeed's state, one file or more a rank
state.json      sampler, random generators, state of the rewards
recipe.yaml     the recipe it was made under
manifest.json   size and SHA-256 of every file above
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_platform.recipe.schema import CheckpointConfig

_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """One that is complete."""

    path: Path
    step: int
    score: float
    """By `checkpoint.best_by`; the higher, the better."""

    @property
    def policy(self) -> Path:
        return self.path / "policy"

    @property
    def learner(self) -> Path:
        return self.path / "learner"

    @property
    def recipe_yaml(self) -> str:
        return (self.path / "recipe.yaml").read_text("utf-8")

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.path / "state.json").read_text("utf-8"))
        return found


class Checkpoints:
    """All checkpoints of the run in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "checkpoints"

    @contextmanager
    def writing(self, step: int, score: float) -> Iterator[Path]:
        """A folder to write a checkpoint in; it takes its place, with its manifest, when the block ends well."""
        final = self._folder / f"step-{step:05d}"
        draft = self._folder / f".{final.name}.draft"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        yield draft
        files = {str(path.relative_to(draft)): _facts(path) for path in _files(draft)}
        manifest = {"step": step, "score": score, "files": files}
        (draft / _MANIFEST).write_text(json.dumps(manifest, indent=1))
        for path in [*_files(draft), *(p for p in draft.rglob("*") if p.is_dir()), draft]:
            _to_disk(path)
        shutil.rmtree(final, ignore_errors=True)  # a resumed run comes by a step again after a damaged one
        draft.rename(final)
        _to_disk(self._folder)

    def complete(self) -> list[Checkpoint]:
        """All that are complete, oldest first; their files are not read."""
        return [Checkpoint(path.parent, *_head(path)) for path in sorted(self._folder.glob(f"step-*/{_MANIFEST}"))]

    def newest_sound(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest whose files are those of its manifest, and a line for each newer one that is damaged."""
        damaged: list[str] = []
        for checkpoint in reversed(self.complete()):
            faults = _faults(checkpoint.path)
            if not faults:
                return checkpoint, damaged
            damaged.append(f"checkpoint {checkpoint.path} is damaged: {'; '.join(faults)}")
        return None, damaged

    def prune(self, config: CheckpointConfig) -> None:
        """Remove all but the newest `keep_last`, and of the others the best `keep_best`."""
        found = self.complete()
        best = sorted(found, key=lambda checkpoint: (checkpoint.score, checkpoint.step), reverse=True)
        kept = {c.step for c in [*found[-config.keep_last :], *best[: config.keep_best]]}
        for checkpoint in found:
            if checkpoint.step not in kept:
                # The manifest goes first: what is half removed must not pass for complete.
                (checkpoint.path / _MANIFEST).unlink()
                shutil.rmtree(checkpoint.path)

    def forget_unfinished(self) -> None:
        """Remove what a killed run left half written or half removed."""
        for path in self._folder.glob("*step-*"):
            if path.name.startswith(".") or not (path / _MANIFEST).is_file():
                shutil.rmtree(path)


def _head(manifest: Path) -> tuple[int, float]:
    found = json.loads(manifest.read_text())
    return int(found["step"]), float(found["score"])


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / _MANIFEST)


def _facts(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _faults(folder: Path) -> list[str]:
    expected = json.loads((folder / _MANIFEST).read_text())["files"]
    found = {str(path.relative_to(folder)): path for path in _files(folder)}
    missing = [f"{name} is missing" for name in expected if name not in found]
    changed = [
        f"{name} is not what was written"
        for name in expected
        if name in found and _facts(found[name]) != expected[name]
    ]
    return missing + changed


def _to_disk(path: Path) -> None:
    """What the name stands for survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
