"""The machine: disk, shared memory, open files, compilers, what is compiled already."""

import os
import resource
import shutil
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path

from rlhf_platform.cli.health.check import Check, Status

OBJECT_STORE = 512 * 2**20
"""Bytes that the Ray of a local run keeps in shared memory."""
LITTLE_DISK, NO_DISK = 5 * 10**9, 10**9
"""Bytes: data, a cached warm start and a checkpoint of a small model take about 1 GB."""
FEW_FILES, TOO_FEW_FILES = 8192, 1024
"""Open files: Ray asks for 8192, and a run of a few actors needs about a thousand."""
BUILD_SECONDS = 900
"""After which a build is not going on any more."""
_OP = "deepspeed_shm_comm.so"


def disk(folder: Path) -> Check:
    """Free space and the right to write where `folder` is or would be made."""
    name = f"disk {folder}"
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        return Check(name, Status.FAIL, f"{there} cannot be written", f"name another folder, or `chmod u+w {there}`")
    free = shutil.disk_usage(there).free
    status = Status.FAIL if free < NO_DISK else Status.WARN if free < LITTLE_DISK else Status.OK
    return Check(name, status, f"{free / 1e9:.1f} GB free", "" if status == Status.OK else "free some, or name another")


def shared_memory(folder: Path = Path("/dev/shm")) -> Check:
    """Room for the object store of a local Ray."""
    if not folder.is_dir():
        return Check("shared memory", Status.WARN, f"no {folder}", "Ray then uses the disk, which is slower")
    return judge_shared_memory(shutil.disk_usage(folder).free)


def judge_shared_memory(free: int) -> Check:
    """`free`: bytes."""
    found = f"{free / 2**20:,.0f} MiB free in /dev/shm, {OBJECT_STORE / 2**20:.0f} MiB wanted by Ray"
    if free >= OBJECT_STORE:
        return Check("shared memory", Status.OK, found)
    way_out = "Ray then uses the disk, which is slower; in a container: --shm-size=1g"
    return Check("shared memory", Status.WARN, found, way_out)


def open_files() -> Check:
    """The limit of file descriptors; Ray raises the soft one to the hard one by itself."""
    return judge_open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def judge_open_files(limit: int) -> Check:
    """`limit`: the hard one; -1 for none."""
    if limit in (-1, resource.RLIM_INFINITY):
        return Check("open files", Status.OK, "no limit")
    status = Status.FAIL if limit < TOO_FEW_FILES else Status.WARN if limit < FEW_FILES else Status.OK
    way_out = "" if status == Status.OK else f"raise the hard limit to {FEW_FILES}, in limits.conf or the container's"
    return Check("open files", status, f"at most {limit:,}", way_out)


def compilers() -> Check:
    """What DeepSpeed and vLLM compile with at run time."""
    header = Path(sysconfig.get_path("include"), "Python.h")
    lacking = [program for program in ("gcc", "g++", "c++") if not shutil.which(program)]
    return judge_compilers(lacking, header if header.is_file() else None)


def judge_compilers(lacking: Sequence[str], header: Path | None) -> Check:
    """`lacking`: programs that are not on the PATH. `header`: Python.h, if it is there."""
    missing = [*lacking, *([] if header else ["Python.h"])]
    if not missing:
        return Check("compilers", Status.OK, f"g++, {header}")
    python = f"python{sys.version_info.major}.{sys.version_info.minor}-dev"
    packages = (["g++"] if lacking else []) + ([] if header else [python])
    way_out = f"on Debian or Ubuntu: sudo apt-get install {' '.join(packages)}"
    return Check("compilers", Status.FAIL, f"missing: {', '.join(missing)}", way_out)


def deepspeed_op(cpu_build: bool) -> Check:
    """The op that DeepSpeed compiles where ranks talk through gloo, so without GPUs."""
    folder = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or Path(sys.prefix, "torch_extensions"))
    return judge_deepspeed_op(folder, cpu_build)


def judge_deepspeed_op(folder: Path, cpu_build: bool) -> Check:
    """`folder`: where torch keeps what it compiles."""
    name = "DeepSpeed op"
    if not cpu_build:
        return Check(name, Status.OK, "not needed: ranks talk through NCCL")
    if locks := sorted(folder.glob("**/lock")):
        if time.time() - locks[0].stat().st_mtime < BUILD_SECONDS:
            return Check(name, Status.WARN, "something compiles or loads it", "ask again in a quarter of an hour")
        return Check(name, Status.FAIL, "a build was broken off, and all wait for its lock", f"rm {locks[0]}")
    if not any(folder.glob(f"**/{_OP}")):
        return Check(name, Status.WARN, f"not compiled in {folder}", "the first run does it, in about a minute")
    return Check(name, Status.OK, f"compiled in {folder}")
