"""A checkpoint on disk, looked at without being loaded, and whether two of them are of one backbone."""

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers import AutoTokenizer

from rlhf_platform.errors import RunError

_OF_NO_CONCERN = frozenset({"_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache"})
"""Keys of config.json that say nothing of what the weights are."""


class Stored:
    """A checkpoint on disk in Hugging Face layout."""

    def __init__(self, folder: Path) -> None:
        """Raises RunError when there are no whole weights in it."""
        self.folder = folder
        self.files = sorted(folder.glob("*.safetensors"))
        if not (folder / "config.json").is_file() or not self.files:
            adapter = (folder / "adapter_config.json").is_file()
            hint = "it holds LoRA alone; merge it into its weights first (rlhf export)" if adapter else "name a model"
            raise RunError(f"{folder}: no config.json with *.safetensors in it; {hint}")

    @cached_property
    def places(self) -> dict[str, tuple[Path, tuple[int, ...]]]:
        """File and shape of each tensor."""
        found = {}
        for file in self.files:
            with safe_open(file, "pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - not a dict
                    found[name] = (file, tuple(opened.get_slice(name).get_shape()))
        return found

    @cached_property
    def config(self) -> dict[str, Any]:
        """Keys with their sections' names before them, but for those that say nothing of the weights."""
        return _flat(json.loads((self.folder / "config.json").read_text("utf-8")))

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        found: dict[str, int] = AutoTokenizer.from_pretrained(self.folder).get_vocab()
        return found

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the files of weights, in the order of their names."""
        digest = hashlib.sha256()
        for file in self.files:
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
        return digest.hexdigest()


def check_same(base: Stored, model: Stored) -> None:
    """Raise RunError with what the two differ in: the configuration first, which is what a person can read."""
    pair = f"{base.folder} and {model.folder} cannot be merged"
    keys = [key for key in {**base.config, **model.config} if base.config.get(key) != model.config.get(key)]
    if keys:
        said = ", ".join(f"{key} ({base.config.get(key)} and {model.config.get(key)})" for key in sorted(keys)[:5])
        raise RunError(f"{pair}: their config.json differ in {said}; take checkpoints of one backbone")
    for one, other in ((base, model), (model, base)):
        missing = sorted(one.places.keys() - other.places.keys())
        if missing:
            raise RunError(f"{pair}: {other.folder} has no {', '.join(missing[:5])}, {len(missing)} tensors in all")
    for name, (_, shape) in base.places.items():
        if shape != model.places[name][1]:
            raise RunError(f"{pair}: {name} has shape {shape} and {model.places[name][1]}")
    ours, theirs = base.vocabulary, model.vocabulary
    differ = sorted(token for token in {**ours, **theirs} if ours.get(token) != theirs.get(token))
    if differ:
        first = f"{differ[0]!r} is {ours.get(differ[0])} and {theirs.get(differ[0])}"
        raise RunError(f"{pair}: their vocabularies differ in {len(differ)} tokens; {first}: rows would be mixed up")


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        elif key not in _OF_NO_CONCERN:
            found[prefix + key] = value
    return found
