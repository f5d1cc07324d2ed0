"""Weights of several checkpoints of one layout made into one: their mean, or what each learnt added to a base.

Task arithmetic is 2212.04089. Tensors are read one by one, added up in float32 and kept in the base's type, so that no
more than one file of weights is in memory.
"""

import json
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from policies.speaking import FILE, SpeechLayout
from policies.stored import Stored, check_same
from rlhf_platform.errors import RunError

METHODS = ("linear", "task")
REPORT = "merge.json"
_BESIDE = (".json", ".jinja", ".txt", ".model")
"""Of the files that go along: configuration, tokenizer, processor, notices."""


@dataclass(frozen=True)
class Merge:
    """How weights become one."""

    method: str
    """`linear`: sum of w_i model_i. `task`: base + scale * sum of w_i (model_i - base)."""
    weights: tuple[float, ...]
    """One per model; with `linear` at least 0 and 1 in sum."""
    scale: float = 1.0
    """Of `task`."""

    def check(self) -> None:
        """Raises RunError for weights that are no mean."""
        if not all(map(isfinite, (*self.weights, self.scale))):
            raise RunError(f"--weights {_listed(self.weights)}, --scale {self.scale:g}: finite numbers are needed")
        if self.method == "task":
            return
        if self.scale != 1.0:
            raise RunError(f"--scale is {self.scale:g}: it is of --method task; leave it out")
        if min(self.weights) < 0 or abs(sum(self.weights) - 1) > 1e-6:
            raise RunError(
                f"--weights {_listed(self.weights)}: a mean has weights of at least 0 that sum to 1; "
                f"give {_listed([1 / len(self.weights)] * len(self.weights))}, say, or --method task"
            )

    def of(self, base: Tensor, models: Sequence[Tensor]) -> Tensor:
        """The merged tensor, in float32, of tensors of one shape and any floating type."""
        start = base.float()
        total = torch.zeros_like(start)
        for weight, tensor in zip(self.weights, models, strict=True):
            total += weight * (tensor.float() - start if self.method == "task" else tensor.float())
        return start + self.scale * total if self.method == "task" else total


def merge(base: Path, models: Sequence[Path], how: Merge, out: Path) -> None:
    """Write the merged checkpoint to the empty folder `out`: weights, and what lies beside those of the base.

    Heads of multi-token prediction are left out: they were fitted to other weights. Raises RunError when the
    checkpoints do not fit each other, and says in what.
    """
    how.check()
    stored = [Stored(folder) for folder in (base, *models)]
    for model in stored[1:]:
        check_same(stored[0], model)
    layout = _layout([base, *models])
    _copy_beside(base, out)
    if layout:
        layout.write(out)
    for file in stored[0].files:
        _merge_file(file, stored, how, out / file.name)
    (out / REPORT).write_text(json.dumps(_provenance(stored, how), indent=1) + "\n", "utf-8")


def _merge_file(file: Path, stored: Sequence[Stored], how: Merge, out: Path) -> None:
    """One file of the base's weights; the other checkpoints may have theirs in other files."""
    merged: dict[str, Tensor] = {}
    with ExitStack() as stack:
        sources: dict[Path, Any] = {}
        for name in (name for name, place in stored[0].places.items() if place[0] == file):
            tensors = []
            for model in stored:
                path = model.places[name][0]
                if path not in sources:
                    sources[path] = stack.enter_context(safe_open(path, "pt"))
                tensors.append(sources[path].get_tensor(name))
            merged[name] = _merged(name, tensors, stored, how)
        metadata = sources[file].metadata()
    save_file(merged, out, metadata=metadata)


def _merged(name: str, tensors: Sequence[Tensor], stored: Sequence[Stored], how: Merge) -> Tensor:
    start, *others = tensors
    if not start.is_floating_point():  # counts, tables of positions: there is no mean of them
        for model, other in zip(stored[1:], others, strict=True):
            if not torch.equal(start, other):
                raise RunError(f"{model.folder}: {name} has other whole numbers than in {stored[0].folder}")
        return start
    found = how.of(start, others).to(start.dtype)
    if not found.isfinite().all():
        raise RunError(f"{name} is not finite once merged; lower --scale, or take out the checkpoint that has it so")
    return found


def _layout(folders: Sequence[Path]) -> SpeechLayout | None:
    """What the merged checkpoint speaks with. Raises RunError when two speak with different things."""
    found = [(folder, layout) for folder in folders if (layout := SpeechLayout.read(folder))]
    if not found:
        return None
    (first, layout), *others = found
    for folder, other in others:
        keys = [key for key, value in asdict(layout).items() if key != "characters" and asdict(other)[key] != value]
        if keys:
            said = ", ".join(f"{key} ({asdict(layout)[key]} and {asdict(other)[key]})" for key in keys)
            raise RunError(f"{first / FILE} and {folder / FILE} differ in {said}: they do not speak alike")
    known = [each.characters for _, each in found]
    # One that has learnt from any text knows all characters.
    characters = None if None in known else "".join(sorted(set().union(*filter(None, known))))
    return replace(layout, characters=characters)


def _copy_beside(base: Path, out: Path) -> None:
    for file in sorted(base.iterdir()):
        if file.is_file() and file.suffix in _BESIDE and file.name != REPORT:
            shutil.copyfile(file, out / file.name)


def _provenance(stored: Sequence[Stored], how: Merge) -> dict[str, Any]:
    base, *models = stored
    return {
        "method": how.method,
        "scale": how.scale,
        "base": {"path": str(base.folder.resolve()), "sha256": base.fingerprint},
        "models": [
            {"path": str(model.folder.resolve()), "weight": weight, "sha256": model.fingerprint}
            for model, weight in zip(models, how.weights, strict=True)
        ],
    }


def _listed(weights: Sequence[float]) -> str:
    return ",".join(f"{weight:g}" for weight in weights)
