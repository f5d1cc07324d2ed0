"""Folders that are made once: whole or not at all, and linked from then on."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def link(source: str, target: str) -> None:
    """A second name for a file that nobody changes any more: checkpoints are large."""
    try:
        os.link(source, target)
    except OSError:  # another disk, or one that knows no links
        shutil.copy2(source, target)


@contextmanager
def made_whole(path: Path) -> Iterator[Path]:
    """A draft folder that becomes `path` when the block ends well, and is removed when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=path.parent))
    try:
        yield draft
        if not path.is_dir():
            draft.rename(path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def fingerprint(path: Path | str | None) -> list[tuple[str, int, int]]:
    """Name, size and time of each file in a folder: other weights at the same place are other weights. Empty for a name
    on a hub."""
    folder = Path(path) if path else None
    if folder is None or not folder.is_dir():
        return []
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return [(str(f.relative_to(folder)), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
