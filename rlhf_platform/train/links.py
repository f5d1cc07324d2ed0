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
