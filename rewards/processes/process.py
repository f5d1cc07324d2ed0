"""One process that calls one reward function, seen from outside: it is started, asked, watched and, if need be, killed.

What the user's code does cannot reach this side: a call that outlasts its time, a crash and too much memory all end
with a dead process, and with an account of which samples it was busy with (`rewards.processes.child`).
"""

import json
import os
import pickle
import re
import select
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from rewards.answers import Answer
from rewards.plugin import Term
from rewards.processes.account import Account, content, memory_file
from rewards.processes.batch import PackedBatch
from rewards.processes.child import DONE, LOAD, RESTORE, SCORE, STATE, WHERE
from rlhf_platform.errors import RecipeError, RewardError, WaitTimeout
from rlhf_platform.types import Failed

_LOOK = 0.05
"""Seconds between two looks at a busy process: how late a timeout may come, and how long memory may grow unseen."""
_GRACE = 1.0
"""Seconds that an event loop may be late with a timeout of its own before it counts as blocked."""
_STATE_TIMEOUT = 60.0
"""Seconds for a function to say what it remembers, or to take it up."""
_GIB = 2**30
_LIBRARY = sysconfig.get_path("stdlib")


@dataclass(frozen=True)
class Round:
    """What came of one request."""

    answers: list[Answer | None]
    """None: it has no answer."""
    seconds: list[float]
    """What each sample took."""
    loss: Failed | None = None
    """Why the process had to go, if it did."""
    under_way: Sequence[int] = ()
    """The samples that it was busy with then."""


class RewardProcess:
    """A process for one term. `gpus`: what it may see, as in CUDA_VISIBLE_DEVICES. Used by one thread at a time."""

    def __init__(self, term: Term, gpus: str = "") -> None:
        self.term = term
        self.batched = self.asynchronous = False
        self.starts = 0
        self._gpus = gpus
        self._calls = 0
        self._state: dict[str, Any] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._files = self._requests, self._slots, self._notes, self._faults = [memory_file() for _ in range(4)]

    def start(self, seconds: float) -> None:
        """Start it and load the function; what an earlier one remembered is given back.

        Raises `RecipeError` when the function cannot be loaded, `WaitTimeout` after `seconds`.
        """
        ours, theirs = socket.socketpair()
        theirs.set_inheritable(True)
        files = [theirs.fileno(), *(file.fileno() for file in self._files)]
        os.ftruncate(self._faults.fileno(), 0)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "rewards.processes.child", *map(str, files)],
            pass_fds=files,
            stdin=subprocess.DEVNULL,
            env=self._environment(),
            start_new_session=True,  # Ctrl-C is for the run; and its own children go with it when it is killed
        )
        theirs.close()
        self._control, self._calls = ours, 0
        self.starts += 1
        said = self._ask(LOAD, pickle.dumps(self.term, 5), seconds, "load its function")
        if "error" in said:
            self.stop()
            raise RecipeError(said["error"])
        self.batched, self.asynchronous = said["batched"], said["asynchronous"]
        if self._state is not None:
            self._ask(RESTORE, json.dumps(self._state).encode(), _STATE_TIMEOUT, "take up what it remembered")

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def worn(self) -> bool:
        """Whether it has made as many calls as the recipe lets it make."""
        return 0 < self.term.config.recycle_after <= self._calls

    def score(self, batch: PackedBatch, until: float) -> Round:
        """Ask for all samples of `batch`; over when all are answered, the process is dead, or `until` has come.

        `until`: time of the monotonic clock. Never raises for what the function does; a process that is lost is
        stopped.
        """
        sequential = not self.batched and not self.asynchronous
        account = Account(self._slots, self._notes, batch.samples, sequential)
        self._calls += 1 if self.batched else batch.samples
        self._send(SCORE, batch.data)
        loss: Failed | None = None
        while loss is None:
            spoke = self._wait(_LOOK)
            gone = spoke and self._control.recv(1) != DONE
            account.read()
            if spoke and not gone:
                return Round(account.answers(self.term.name), account.seconds())
            loss = self._crash() if gone else self._trouble(account, until)
        self.stop()
        # What came in after the look that condemned it came too late.
        return Round(account.answers(self.term.name), account.seconds(), loss, account.under_way())

    def state(self) -> dict[str, Any]:
        """What the function remembers and where its random generators stand, as plain JSON values.

        Raises `RewardError` when it cannot say so.
        """
        said = self._ask(STATE, b"", _STATE_TIMEOUT, "say what it remembers")
        if "error" in said:
            raise RewardError(f"reward {self.term.name}: {said['error']}")
        self._state = said
        return said

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._state = dict(state)
        self._ask(RESTORE, json.dumps(self._state).encode(), _STATE_TIMEOUT, "take up what it remembered")

    def kill(self) -> None:
        """Kill it and all that it started, from whichever thread."""
        process = self._process
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def stop(self) -> None:
        """Kill it, and wait until it is gone."""
        self.kill()
        process, self._process = self._process, None
        if process is None:
            return
        try:
            self._exit = process.wait(timeout=10)
        except subprocess.TimeoutExpired:  # the kernel holds it, as in a read from a dead disk
            self._exit = -signal.SIGKILL
        self._control.close()

    def close(self) -> None:
        """Stop it and let its files go; it is not used after that."""
        self.stop()
        for file in self._files:
            file.close()

    def _environment(self) -> dict[str, str]:
        threads = str(max(1, int(self.term.config.cpus / (self.term.config.concurrency or 1))))
        own = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
        paths = os.pathsep.join(path for path in sys.path if path)
        return os.environ | own | {"PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": self._gpus}

    def _send(self, command: bytes, payload: bytes) -> None:
        os.ftruncate(self._requests.fileno(), 0)
        os.write(self._requests.fileno(), payload)
        with suppress(OSError):  # it died between two calls: the wait that follows finds it dead
            self._control.send(command)

    def _wait(self, seconds: float) -> bool:
        """Whether it has said something, or is gone, within that time."""
        return bool(select.select([self._control], [], [], max(0.0, seconds))[0])

    def _ask(self, command: bytes, payload: bytes, seconds: float, what: str) -> dict[str, Any]:
        os.ftruncate(self._notes.fileno(), 0)
        self._send(command, payload)
        if not self._wait(seconds):
            self.stop()
            raise WaitTimeout(f"reward {self.term.name}", f"its process to {what}", seconds)
        if self._control.recv(1) != DONE:
            raise RewardError(f"reward {self.term.name}: {self._crash().message} while it was to {what}")
        said = content(self._notes.fileno())
        return dict(json.loads(said)) if said else {}

    def _trouble(self, account: Account, until: float) -> Failed | None:
        """Why it must be killed now, if it must."""
        now, term = time.monotonic(), self.term
        limit = term.timeout + (_GRACE if self.asynchronous else 0.0)
        if self._process is not None and self._process.poll() is not None:
            account.read()
            return self._crash()
        if account.busy_since() + limit < now:
            said = f"no answer within {term.timeout:g} s; its process was killed{self._busy_at()}"
            return Failed("timeout", said, term.name)
        if until < now:
            return Failed("timeout", "the time for all rewards of this step was over while it ran", term.name)
        held = _resident(self._process.pid) / _GIB if self._process else 0.0
        if held > term.config.max_memory:
            limit_said = f"{term.key}.max_memory is {term.config.max_memory:g}; raise it if that much is needed"
            return Failed("crashed", f"its process was killed at {held:.1f} GiB: {limit_said}", term.name)
        return None

    def _crash(self) -> Failed:
        """How a process that is gone came to its end, with the place in the code where it is known."""
        self.stop()
        code = self._exit
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        how = f"died of {name}" if code < 0 else f"ended with exit code {code}"
        return Failed("crashed", f"its process {how}{self._place()}", self.term.name)

    def _busy_at(self) -> str:
        """Where a process that hangs is, as ` (file:line)`; "" when it does not say."""
        if self._process is None:
            return ""
        os.kill(self._process.pid, WHERE)
        for _ in range(10):
            time.sleep(0.02)
            if place := self._place():
                return place
        return ""

    def _place(self) -> str:
        """The innermost line of a traceback in the faults that is not of Python's own library."""
        faults = content(self._faults.fileno()).decode(errors="replace")
        places = re.findall(r'File "(.+?)", line (\d+)', faults)
        own = [place for place in places if not place[0].startswith((_LIBRARY, "<frozen"))] or places
        return f" ({own[0][0]}:{own[0][1]})" if own else ""


def _resident(pid: int) -> int:
    """Bytes that a process holds in memory; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0
