"""Copies of what nobody changes any more."""

import os
import shutil


def link(source: str, target: str) -> None:
    """A second name for a file that nobody changes any more: checkpoints are large."""
    try:
        os.link(source, target)
    except OSError:  # another disk, or one that knows no links
        shutil.copy2(source, target)
