"""What runs in the process that calls a reward function, started by `rewards.processes.process`.

All user code runs here and nowhere else, so that whatever it does (hang, crash, eat memory, block its event loop) ends
with this process. Requests and replies lie in memory files that both sides hold, so that what was answered outlives a
crash and nobody ever waits for a reader; one byte through a socket says that there is something to read.
"""

import asyncio
import ctypes
import faulthandler
import json
import os
import pickle
import random
import resource
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from rewards.answers import Answer, read_answer, read_batch, read_error
from rewards.plugin import AWAITS, RewardFunction, Term, load_reward
from rewards.processes.account import Writer, content
from rewards.processes.batch import InputBatch
from rewards.types import RewardInput
from rlhf_platform.errors import PlatformError
from rlhf_platform.types import Failed

DONE = b"."
LOAD, SCORE, STATE, RESTORE = (bytes([letter]) for letter in b"LSGP")
WHERE = signal.SIGUSR2
"""Makes the process write down where it is, whatever it is doing."""
_PARENT_DIED = 1
"""PR_SET_PDEATHSIG of Linux's prctl."""


class Files(NamedTuple):
    """Memory files by their descriptors."""

    requests: int
    slots: int
    """A slot per sample (`rewards.processes.account`)."""
    notes: int
    """What does not fit into a slot, as JSON."""
    faults: int
    """Where the process was when it crashed, or was asked."""

    def say(self, value: object) -> None:
        """What loading, or a state, came to."""
        os.write(self.notes, json.dumps(value).encode())


class Caller:
    """Calls one reward function, and writes down each answer as it comes."""

    def __init__(self, term: Term, reward: RewardFunction) -> None:
        self._term, self._reward = term, reward
        # One loop for all calls: a function may keep a session in it.
        self._runner = asyncio.Runner()

    def score(self, inputs: list[RewardInput], writer: Writer) -> None:
        """Answer every sample. What the function raises is an answer; nothing is raised."""
        if self._reward.asynchronous:
            self._runner.run(self._await_all(inputs, writer))
        elif self._reward.batched:
            for index, answer in enumerate(self._batch(inputs)):
                writer.answered(index, answer)
        else:
            self._each(inputs, writer)

    # In the four below `except BaseException` is the boundary: a plug-in's SystemExit is its answer too.

    def _each(self, inputs: list[RewardInput], writer: Writer) -> None:
        fn, name, answered = self._reward.fn, self._term.name, writer.answered
        for index, sample in enumerate(inputs):
            try:
                answer = read_answer(fn(sample), name)
            except BaseException as error:  # noqa: BLE001
                answer = read_error(error, name)
            answered(index, answer)

    def _batch(self, inputs: list[RewardInput]) -> Sequence[Answer]:
        try:
            return read_batch(self._reward.fn(inputs), len(inputs), self._term.name)
        except BaseException as error:  # noqa: BLE001
            return [read_error(error, self._term.name)] * len(inputs)

    async def _await_batch(self, inputs: list[RewardInput]) -> Sequence[Answer]:
        try:
            return read_batch(await self._reward.fn(inputs), len(inputs), self._term.name)
        except BaseException as error:  # noqa: BLE001
            return [read_error(error, self._term.name)] * len(inputs)

    async def _await_one(self, inputs: list[RewardInput]) -> Sequence[Answer]:
        try:
            return [read_answer(await self._reward.fn(inputs[0]), self._term.name)]
        except BaseException as error:  # noqa: BLE001
            return [read_error(error, self._term.name)]

    async def _await_all(self, inputs: list[RewardInput], writer: Writer) -> None:
        size = (self._term.batch_size or len(inputs)) if self._reward.batched else 1
        call = self._await_batch if self._reward.batched else self._await_one
        gate = asyncio.Semaphore(self._term.config.concurrency or AWAITS)

        async def in_turn(indices: range) -> None:
            async with gate:
                for index in indices:
                    writer.begun(index)
                answers = await self._within_timeout(call([inputs[index] for index in indices]), len(indices))
                for index, answer in zip(indices, answers, strict=True):
                    writer.answered(index, answer)

        calls = [range(start, min(start + size, len(inputs))) for start in range(0, len(inputs), size)]
        await asyncio.gather(*map(in_turn, calls))

    async def _within_timeout(self, work: Awaitable[Sequence[Answer]], answers: int) -> Sequence[Answer]:
        # Not wait_for: it waits for a cancelled task to end, which one that ignores cancelling never does.
        task = asyncio.ensure_future(work)
        await asyncio.wait({task}, timeout=self._term.timeout)
        if task.done():
            return task.result()
        task.cancel()
        await asyncio.sleep(0)  # the task learns of it even when the loop stops next
        return [Failed("timeout", f"no answer within {self._term.timeout:g} s", self._term.name)] * answers


def serve(control: socket.socket, files: Files) -> None:
    """Load the function that the first request names, then do what each byte from the parent says, until it is gone."""
    control.recv(1)
    term: Term = pickle.loads(content(files.requests))
    try:
        reward = load_reward(term)
    except PlatformError as error:
        files.say({"error": str(error)})
        control.send(DONE)
        return
    _seed(term.seed)
    files.say({"batched": reward.batched, "asynchronous": reward.asynchronous})
    control.send(DONE)
    caller = Caller(term, reward)
    while command := control.recv(1):
        if command == SCORE:
            batch: InputBatch = pickle.loads(content(files.requests))
            inputs = batch.inputs()
            caller.score(inputs, Writer(files.slots, files.notes, len(inputs)))
        elif command == STATE:
            files.say(_state(reward.fn))
        elif command == RESTORE:
            _restore(reward.fn, json.loads(content(files.requests)))
        control.send(DONE)


def _state(fn: Any) -> dict[str, Any]:
    """What the function remembers, and where its generators stand; `error` where that cannot be written down."""
    from rlhf_platform import random_state

    try:
        own = fn.state_dict() if hasattr(fn, "state_dict") else None
        json.dumps(own)
    except Exception as error:  # noqa: BLE001  # the boundary: a plug-in's state_dict may raise anything
        return {"error": f"state_dict() must return plain JSON values ({' '.join(str(error).split())})"}
    return {"reward": own, "random": random_state.capture()}


def _restore(fn: Any, state: Mapping[str, Any]) -> None:
    from rlhf_platform import random_state

    if state["reward"] is not None:
        fn.load_state_dict(state["reward"])
    random_state.restore(state["random"])


def _seed(seed: int) -> None:
    """Two runs of one recipe score alike, as far as their rewards draw from the usual generators."""
    random.seed(seed)
    for name in ("numpy", "torch"):
        module = sys.modules.get(name)
        if module:
            seeding: Callable[[int], object] = module.random.seed if name == "numpy" else module.manual_seed
            seeding(seed)


def _die_with_parent() -> None:
    """A killed worker leaves nothing behind, not even a child that hangs."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DIED, signal.SIGKILL)


def main(control: int, *files: int) -> None:
    """Arguments are file descriptors: the socket, then those of `Files`."""
    _die_with_parent()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is told in a line, not in a file as large as the process
    for file in (control, *files):
        os.set_inheritable(file, False)  # what the function starts shall not keep them open
    given = Files(*files)
    faulthandler.enable(given.faults, all_threads=False)
    faulthandler.register(WHERE, given.faults, all_threads=False)
    serve(socket.socket(fileno=control), given)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
