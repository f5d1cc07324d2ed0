"""Calling a reward function with a bound (law 3) and turning all that can happen into an `Answer` (law 2).

The bound abandons, it does not kill: a call that does not return keeps its thread, and whatever it holds,
until it does or the process ends. It no longer blocks anybody, unless it holds the interpreter's lock.
"""

import asyncio
import math
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

from rewards.answers import Answer, read_answer, read_batch, read_error
from rewards.plugin import RewardFunction
from rewards.types import RewardInput
from rlhf_platform.types import Failed

ASYNC_AT_ONCE = 32
"""Samples of an async reward that are awaited at the same time; kind to the server behind it."""

_LOOP_GRACE = 1.0
"""Seconds an event loop may be late before it counts as blocked."""

_Job = Callable[[asyncio.Runner], list[Answer]]


class _Lane:
    """One daemon thread that runs jobs in turn, with an event loop of its own for async functions.

    Not a ThreadPoolExecutor: that one waits for its threads when the process ends, so a hung call would hang
    it.
    """

    def __init__(self, name: str) -> None:
        self._runner = asyncio.Runner()
        self._jobs: SimpleQueue[tuple[_Job, Future[list[Answer]]] | None] = SimpleQueue()
        threading.Thread(target=self._work, name=f"reward {name}", daemon=True).start()

    def submit(self, job: _Job) -> Future[list[Answer]]:
        """Runs `job`, which must not raise, after those before it."""
        future: Future[list[Answer]] = Future()
        self._jobs.put((job, future))
        return future

    def leave(self) -> None:
        """Lets the thread end once it is free."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, future = item
            future.set_result(job(self._runner))
        self._runner.close()


class RewardCaller:
    """Calls one reward function. Calls do not overlap, save those of async functions and those abandoned."""

    def __init__(self, reward: RewardFunction) -> None:
        self.reward = reward
        self._lane = _Lane(reward.name)

    def call(self, samples: Sequence[RewardInput]) -> list[Answer]:
        """One answer per sample, in order; never raises for what the function does.

        Takes at most `timeout` seconds for a batched function, `timeout` for each sample for a sync one, and
        `timeout` for each `ASYNC_AT_ONCE` samples for an async one (`_LOOP_GRACE` on top).
        """
        reward = self.reward
        if not samples:
            return []
        if reward.asynchronous:
            rounds = 1 if reward.batched else math.ceil(len(samples) / ASYNC_AT_ONCE)
            gather = self._await_batch if reward.batched else self._await_each
            limit = rounds * reward.timeout + _LOOP_GRACE
            return self._bounded(lambda runner: runner.run(gather(list(samples))), len(samples), limit)
        if reward.batched:
            return self._bounded(lambda _: self._batch(list(samples)), len(samples), reward.timeout)
        return [self._sample(sample) for sample in samples]

    def close(self) -> None:
        """Lets the thread go; the caller is not used after that."""
        self._lane.leave()

    def _bounded(self, job: _Job, answers: int, seconds: float) -> list[Answer]:
        future = self._lane.submit(job)
        try:
            return future.result(timeout=seconds)
        except TimeoutError:
            self._lane.leave()
            self._lane = _Lane(self.reward.name)
            return [self._timeout(seconds)] * answers

    def _timeout(self, seconds: float) -> Failed:
        return Failed("timeout", f"no answer within {seconds:g} s; the call was abandoned", self.reward.name)

    def _sample(self, sample: RewardInput) -> Answer:
        return self._bounded(lambda _: [self._one(sample)], 1, self.reward.timeout)[0]

    # In the four below `except BaseException` is the boundary: a plug-in's SystemExit must not end the actor.

    def _one(self, sample: RewardInput) -> Answer:
        try:
            return read_answer(self.reward.fn(sample), self.reward.name)
        except BaseException as error:  # noqa: BLE001
            return read_error(error, self.reward.name)

    def _batch(self, samples: list[RewardInput]) -> list[Answer]:
        try:
            return read_batch(self.reward.fn(samples), len(samples), self.reward.name)
        except BaseException as error:  # noqa: BLE001
            return [read_error(error, self.reward.name)] * len(samples)

    async def _await_each(self, samples: list[RewardInput]) -> list[Answer]:
        gate = asyncio.Semaphore(ASYNC_AT_ONCE)

        async def attempt(sample: RewardInput) -> list[Answer]:
            try:
                return [read_answer(await self.reward.fn(sample), self.reward.name)]
            except BaseException as error:  # noqa: BLE001
                return [read_error(error, self.reward.name)]

        async def in_turn(sample: RewardInput) -> Answer:
            async with gate:
                return (await self._within_timeout(attempt(sample), 1))[0]

        return await asyncio.gather(*(in_turn(sample) for sample in samples))

    async def _await_batch(self, samples: list[RewardInput]) -> list[Answer]:
        async def attempt() -> list[Answer]:
            try:
                return read_batch(await self.reward.fn(samples), len(samples), self.reward.name)
            except BaseException as error:  # noqa: BLE001
                return [read_error(error, self.reward.name)] * len(samples)

        return await self._within_timeout(attempt(), len(samples))

    async def _within_timeout(self, work: Coroutine[Any, Any, list[Answer]], answers: int) -> list[Answer]:
        # Not wait_for: it waits for a cancelled task to end, which one that ignores cancelling never does.
        task = asyncio.create_task(work)
        await asyncio.wait({task}, timeout=self.reward.timeout)
        if task.done():
            return task.result()
        task.cancel()
        await asyncio.sleep(0)  # the task learns of it even when the loop stops next
        return [self._timeout(self.reward.timeout)] * answers
