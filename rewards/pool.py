"""One reward function, called in processes of its own: side by side, again where the recipe says so, never for ever."""

import queue
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from rewards.answers import Answer
from rewards.plugin import Term
from rewards.processes.batch import InputBatch, PackedBatch
from rewards.processes.process import RewardProcess, Round
from rewards.types import RewardInput
from rlhf_platform.errors import PlatformError
from rlhf_platform.recipe.rewards import reward_name
from rlhf_platform.recipe.schema import RewardConfig
from rlhf_platform.types import Failed

RETRIED = ("timeout", "crashed", "raised", "unavailable")
"""Failures that may pass; a function that answers with nonsense does so again."""
OVER = "the time for all rewards of this step was over before its turn"
_CACHED = 100_000
"""Answers that a cache holds at most."""
_CHUNKS = 4
"""Parts that a process's share of the samples is cut into, so that one that is held up leaves work to the others."""


@dataclass(frozen=True)
class Call:
    """Samples that are asked for together."""

    indices: Sequence[int]
    attempt: int = 0


class RewardPool:
    """The processes of one term. A context manager; `close` kills what is still at work."""

    def __init__(self, term: Term, start_timeout: float = 300.0, gpus: str = "") -> None:
        """Starts the processes. `gpus`: what they may see, as in CUDA_VISIBLE_DEVICES.

        Raises `RecipeError` when the function cannot be loaded.
        """
        self.term = term
        self.retried = self.cached = 0
        self._start_timeout = start_timeout
        self._cache: dict[Any, Answer] = {}
        self._closed = threading.Event()
        count = term.config.concurrency or 1
        # Threads that stay: a process dies with the thread that started it.
        self._threads = ThreadPoolExecutor(count, f"reward {term.name}")
        # Each draws random numbers of its own.
        self._processes = [RewardProcess(replace(term, seed=term.seed + number), gpus) for number in range(count)]
        try:
            self._start(self._processes[:1])
            # The loop of an async function is one process, however many calls it awaits.
            self._processes = self._processes[: 1 if self._processes[0].asynchronous else count]
            self._start(self._processes[1:])
        except BaseException:
            self.close()
            raise
        self._idle: queue.SimpleQueue[RewardProcess] = queue.SimpleQueue()
        for process in self._processes:
            self._idle.put(process)

    @classmethod
    def of(cls, fn: str, base_dir: Path = Path(), **keys: Any) -> Self:
        """A pool for a function by its name, outside a run. `keys`: of a term in a recipe, as `timeout=1.0`."""
        config = RewardConfig(fn=fn, **keys)
        return cls(Term(config, reward_name(config), base_dir=base_dir))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def restarts(self) -> int:
        """Processes that were replaced so far: they hung, crashed, held too much, or had made their calls."""
        return sum(max(0, process.starts - 1) for process in self._processes)

    def call(self, inputs: Sequence[RewardInput]) -> list[Answer]:
        """One answer per sample, in order, for samples made by hand."""
        return self.score(PackedBatch.of(InputBatch.of_inputs(inputs)))[0]

    def score(self, batch: PackedBatch, until: float = float("inf")) -> tuple[list[Answer], list[float]]:
        """One answer per sample, in order, and the seconds each took; never raises for what the function does.

        `until`: time of the monotonic clock at which the samples that are left are `Failed(timeout)`.
        """
        if not self.term.config.cache:
            return self._score(batch, until)
        keys = batch.unpacked.keys()
        first: dict[Any, int] = {}
        for index, key in enumerate(keys):
            if key not in self._cache:
                first.setdefault(key, index)
        unknown = list(first.values())
        answers, seconds = self._score(batch.take(unknown), until)
        found = {keys[i]: answer for i, answer in zip(unknown, answers, strict=True)}
        self.cached += len(keys) - len(unknown)
        known = self._cache | found
        self._remember(found)
        return [known[key] for key in keys], seconds

    def states(self) -> list[dict[str, Any]]:
        """What each process's function remembers and where its random generators stand. Raises `RewardError`."""
        return [self._threads.submit(self._state, process).result() for process in self._processes]

    def load_states(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Go on from what `states` gave."""
        for process, state in zip(self._processes, states, strict=False):
            process.load_state(state)

    def close(self) -> None:
        """Kill the processes, at work or not; the pool is not used after that."""
        self._closed.set()
        for process in self._processes:
            process.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for process in self._processes:
            process.close()

    def _start(self, processes: Sequence[RewardProcess]) -> None:
        for started in [self._threads.submit(process.start, self._start_timeout) for process in processes]:
            started.result()

    def _score(self, batch: PackedBatch, until: float) -> tuple[list[Answer], list[float]]:
        answers: list[Any] = [None] * batch.samples
        seconds = [0.0] * batch.samples
        waiting: dict[Future[Round], Call] = {}
        calls = self._calls(range(batch.samples))
        while calls or waiting:
            waiting |= {self._submit(batch.take(call.indices), until): call for call in calls}
            calls = []
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                call, came = waiting.pop(future), future.result()
                for place, index in enumerate(call.indices):
                    answers[index] = came.answers[place]
                    seconds[index] += came.seconds[place]
                calls += self._again(call, came, answers)
        return answers, seconds

    def _calls(self, indices: Sequence[int]) -> list[Call]:
        """What is asked for together, for a start."""
        first, recycle_after = self._processes[0], self.term.config.recycle_after
        parts = 1 if len(self._processes) == 1 else _CHUNKS * len(self._processes)
        size = max(1, -(-len(indices) // parts))
        if first.batched and not first.asynchronous:
            size = self.term.batch_size or max(1, len(indices))
        elif recycle_after:
            size = min(size, recycle_after)
        return [Call(indices[start : start + size]) for start in range(0, len(indices), size)]

    def _submit(self, batch: PackedBatch, until: float) -> Future[Round]:
        try:
            return self._threads.submit(self._ask, batch, until)
        except RuntimeError:  # closed meanwhile
            over: Future[Round] = Future()
            over.set_result(self._none(batch.samples, "timeout", OVER))
            return over

    def _ask(self, batch: PackedBatch, until: float) -> Round:
        """One request to a process that is free, which is started anew where it must be."""
        process = self._idle.get()
        try:
            left = until - time.monotonic()
            if left <= 0 or self._closed.is_set():
                return self._none(batch.samples, "timeout", OVER)
            if process.worn and process.alive:
                process.state()
                process.stop()
            if not process.alive:
                process.start(min(self._start_timeout, left))
            if self._closed.is_set():  # while it started
                process.stop()
                return self._none(batch.samples, "timeout", OVER)
            return process.score(batch, until)
        except (PlatformError, OSError) as error:
            return self._none(batch.samples, "unavailable", f"its process could not be started again: {error}")
        finally:
            self._idle.put(process)

    def _none(self, samples: int, kind: str, message: str) -> Round:
        """The round in which no sample is answered."""
        return Round([Failed(kind, message, self.term.name)] * samples, [0.0] * samples)

    def _again(self, call: Call, came: Round, answers: list[Any]) -> list[Call]:
        """What is to be asked once more after a call, and how; a sample that a process was lost over has its answer."""
        again: list[Call] = []
        if came.loss is not None:
            busy = [call.indices[place] for place in came.under_way]
            late_batch = self._processes[0].batched and came.loss.kind == "timeout"
            if len(busy) == 1 or late_batch:
                for index in busy:
                    answers[index] = came.loss
            else:  # one of several brought it down: by itself each is answered, or is the one
                again += [Call([index], call.attempt) for index in busy]
            rest = [i for i in call.indices if answers[i] is None and i not in set(busy)]
            again += [Call(rest, call.attempt)] if rest else []
        if call.attempt < self.term.retries:
            passing = [i for i in call.indices if isinstance(answers[i], Failed) and answers[i].kind in RETRIED]
            again += [Call([index], call.attempt + 1) for index in passing]
            self.retried += len(passing)
        return again

    def _state(self, process: RewardProcess) -> dict[str, Any]:
        if not process.alive:
            process.start(self._start_timeout)
        return process.state()

    def _remember(self, found: Mapping[Any, Answer]) -> None:
        """Keep answers; a failure is none, the next time may be better."""
        self._cache |= {key: answer for key, answer in found.items() if not isinstance(answer, Failed)}
        for key in list(self._cache)[: max(0, len(self._cache) - _CACHED)]:  # the oldest go first
            del self._cache[key]
