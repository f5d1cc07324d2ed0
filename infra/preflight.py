"""What the machine must have before anything is downloaded."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

# Bytes. A finished .venv takes 4.7 GB on CPU; the rest is what pip unpacks and caches on the way.
# The CUDA figure is an estimate from the sizes of the wheels.
NEEDED = {"cpu": 8 * 10**9, "cuda": 25 * 10**9}


def has_gpu() -> bool:
    """Whether an NVIDIA driver answers and lists a GPU."""
    if not shutil.which("nvidia-smi"):
        return False
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except subprocess.TimeoutExpired:
        return False
    return listing.returncode == 0 and "GPU " in listing.stdout


def size_of(folder: Path) -> int:
    """Bytes of the files under `folder`; 0 when it is not there."""
    return sum(f.lstat().st_size for f in folder.rglob("*") if f.is_file() and not f.is_symlink())


def disk_problem(free: int, needed: int, where: Path) -> str | None:
    """Compare bytes free with bytes needed."""
    if free >= needed:
        return None
    sizes = f"{free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB are needed"
    return f"the disk of {where} has {sizes}: free some, or clone to a larger disk"


def missing_packages(include: Path) -> list[str]:
    """Debian packages that are missing, given the folder of this Python's C headers.

    DeepSpeed and torch.compile build C++ at run time, with Python's headers.
    """
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    missing = []
    if not all(shutil.which(compiler) for compiler in ("gcc", "g++", "c++")):
        missing.append("g++")
    if not (include / "Python.h").is_file():
        missing.append(f"{python}-dev")
    # Debian ships `venv` without the part that puts pip into one.
    if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        missing.append(f"{python}-venv")
    return missing


def problems(root: Path, kind: str) -> list[str]:
    """Every reason why set-up would fail later, one line each."""
    found = []
    missing = missing_packages(Path(sysconfig.get_path("include")))
    if missing:
        found.append(f"system packages are missing. Run: sudo apt-get install {' '.join(missing)}")
    free = shutil.disk_usage(root).free
    # What an earlier set-up left is not needed again. Counting it takes a second: only when it matters.
    if free < NEEDED[kind]:
        short = disk_problem(free, NEEDED[kind] - size_of(root / ".venv"), root)
        if short:
            found.append(short)
    return found
