"""What a process has answered: memory that both sides hold, written by one, and that outlives the one who writes.

A slot per sample says when its call was begun, what was answered and when. Numbers stand in the slot; other answers (a
dict, a failure) in a file of JSON lines, `[i, answer]`, written before the slot says that there is one.
"""

import fcntl
import json
import mmap
import os
import struct
import tempfile
import time
from array import array
from collections.abc import Sequence
from io import FileIO
from typing import Any

from rewards.answers import Answer
from rlhf_platform.types import Failed

_SLOT = struct.Struct("ddd")
"""Seconds of the monotonic clock when the call was begun, 0 if that was not said; the number; seconds when it came."""
_RESULT = struct.Struct("dd")
_BEGUN = struct.Struct("d")


def memory_file() -> FileIO:
    """A file in memory, to be handed to a child; writes go to its end, whoever writes."""
    if hasattr(os, "memfd_create"):  # Linux
        fd = os.memfd_create("reward")
    else:
        fd, path = tempfile.mkstemp()
        os.unlink(path)
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)
    return os.fdopen(fd, "r+b", 0)


def content(fd: int) -> bytes:
    """All that is in a file."""
    return os.pread(fd, os.fstat(fd).st_size, 0)


class Writer:
    """The child's side, for the samples of one request."""

    def __init__(self, slots: int, notes: int, samples: int) -> None:
        self._notes = notes
        self._memory = mmap.mmap(slots, samples * _SLOT.size) if samples else mmap.mmap(-1, 1)

    def begun(self, index: int) -> None:
        """Sample `index` is under way; not needed where one call follows the other."""
        _BEGUN.pack_into(self._memory, index * _SLOT.size, time.monotonic())

    def answered(self, index: int, answer: Answer) -> None:
        number = answer
        if type(answer) is not float:
            written = [answer.kind, answer.message] if isinstance(answer, Failed) else answer
            os.write(self._notes, f"{json.dumps([index, written])}\n".encode())
            number = 0.0
        _RESULT.pack_into(self._memory, index * _SLOT.size + _BEGUN.size, number, time.monotonic())


class Account:
    """The parent's side. `sequential`: one call follows the other, so that the next one is under way."""

    def __init__(self, slots: FileIO, notes: FileIO, samples: int, sequential: bool) -> None:
        """Makes room for a new request."""
        self._slots, self._notes, self._sequential = slots.fileno(), notes.fileno(), sequential
        self.samples = samples
        for fd, size in ((self._slots, 0), (self._slots, samples * _SLOT.size), (self._notes, 0)):
            os.ftruncate(fd, size)
        self.started = time.monotonic()
        self._begun: Sequence[float] = ()
        self._numbers: Sequence[float] = ()
        self._came: Sequence[float] = ()

    def read(self) -> None:
        """Take in what was written since."""
        values = array("d", content(self._slots)).tolist()
        self._begun, self._numbers, self._came = values[0::3], values[1::3], values[2::3]

    def under_way(self) -> list[int]:
        """The samples that the process is busy with."""
        left = [index for index, came in enumerate(self._came) if not came]
        if self._sequential:
            return left[:1]
        return [index for index in left if self._begun[index]] or left

    def busy_since(self) -> float:
        """When the oldest call that is under way was begun."""
        if self._sequential:
            return max([self.started, *self._came])
        under_way = [begun for begun, came in zip(self._begun, self._came, strict=True) if begun and not came]
        return min(under_way, default=max([self.started, *self._came]))

    def answers(self, term: str) -> list[Answer | None]:
        """Each sample's answer; None where there is none yet."""
        answers: list[Any] = list(self._numbers)
        for line in content(self._notes).splitlines():
            index, written = json.loads(line)
            answers[index] = Failed(written[0], written[1], term) if isinstance(written, list) else written
        if not all(self._came):
            answers = [answer if came else None for answer, came in zip(answers, self._came, strict=True)]
        return answers

    def seconds(self) -> list[float]:
        """What each sample took: its call's time; of one call for all, its share."""
        if self._sequential:
            return [max(0.0, end - start) for start, end in zip([self.started, *self._came], self._came, strict=False)]
        share = max([0.0, *self._came], default=0.0) - self.started
        return [
            max(0.0, end - begun) if begun else max(0.0, share) / self.samples
            for begun, end in zip(self._begun, self._came, strict=True)
        ]
