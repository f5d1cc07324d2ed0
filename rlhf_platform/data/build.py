"""How a data set's folder comes about: whole or not at all, and once."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rlhf_platform.errors import DataError

Stamp = Mapping[str, Any]
"""All that decides a build's bits, in values that JSON gives back as they were; kept in its build.json."""


def build_once(out_dir: str | Path, name: str, stamp: Stamp, write: Callable[[Path], None]) -> Path:
    """Have `write(folder)` make the clips and manifest.jsonl of data set `name`; the manifest in `out_dir`.

    A folder that holds the same build already is returned at once; the folder appears only when it is whole.
    Raises `DataError` if `out_dir` holds anything else, and whatever `write` raises.
    """
    out = Path(out_dir).absolute()
    if _holds(out, name, stamp):
        return out / "manifest.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        unfinished.chmod(0o755)
        write(unfinished)
        (unfinished / "build.json").write_text(json.dumps(stamp, indent=1) + "\n")
        try:
            os.rename(unfinished, out)
        except OSError:
            if not _holds(out, name, stamp):  # else another process built the same set meanwhile
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return out / "manifest.jsonl"


def key_of(stamp: Stamp) -> str:
    """Names a build: eight hex digits that change with its stamp."""
    return hashlib.sha256(json.dumps(stamp, sort_keys=True).encode()).hexdigest()[:8]


def _holds(out: Path, name: str, stamp: Stamp) -> bool:
    """`out` is this very build, or there is nothing in the way. Raises `DataError` for anything else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    found = out / "build.json"
    if found.is_file() and json.loads(found.read_text()) == stamp:
        return True
    what = f"another build of {name}" if found.is_file() else "other files"
    raise DataError(f"{out}: holds {what}; delete it or name another folder")
