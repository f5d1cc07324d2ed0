"""How long a user waits for the first token under a stated load, and for the first one that is spoken.

The engine is stepped here, so that every token is seen as it comes. Latency is that of prompts as they are given: one
that the engine has met is quicker, since it remembers prefixes and clips (`RolloutEngine.forget` makes it forget).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from time import perf_counter, sleep
from typing import Any, Protocol

import numpy as np

from rlhf_platform.data.dialogue import ANSWER, THINK, split_reply
from rlhf_platform.errors import WaitTimeout

Speaks = Callable[[Sequence[int]], bool]
"""Whether a completion that has these tokens so far has begun to be spoken; `spoken` of their text, in a dialogue."""


@dataclass(frozen=True)
class InFlight:
    """A closed loop: so many requests at a time, each followed at once by the next."""

    requests: int

    def __str__(self) -> str:
        return f"{self.requests} in flight"


@dataclass(frozen=True)
class Arrivals:
    """An open loop: requests arrive at this rate, whether or not those before them are done."""

    per_second: float

    def __str__(self) -> str:
        return f"{self.per_second:g} a second"


Load = InFlight | Arrivals


@dataclass
class Waited:
    """One request. It waits from its arrival on, so that the preparation of its audio counts."""

    arrived: float
    """By the clock, as the others; seconds."""
    first: float = inf
    """When its first token came."""
    spoken: float = inf
    """When the first token came that is spoken; infinite where the completion ended before."""
    tokens: int = 0


@dataclass(frozen=True)
class Latency:
    """Of all requests, in seconds."""

    load: str
    requests: int
    silent: int
    """Requests of which nothing was spoken; they count in no spoken figure."""
    tokens: int
    """Of all completions together."""
    first_p50: float
    first_p95: float
    spoken_p50: float
    """NaN, as the next, where nothing was spoken."""
    spoken_p95: float


class Engine(Protocol):
    """What is measured."""

    def add(self, number: int) -> None:
        """Take request `number`."""

    def step(self) -> Sequence[tuple[int, Sequence[int]]]:
        """Compute what is next; the requests that have moved, with all their tokens so far."""
        ...

    def unfinished(self) -> int:
        """Requests that are not done."""
        ...


def spoken(text: str) -> bool:
    """Whether there is something of the reply in a completion's text so far: its trace is over, or it has none.

    What may yet become the mark of a trace is nothing of the reply.
    """
    reply = split_reply(text)[1]
    return bool(reply) and (ANSWER in text or not THINK.startswith(reply))


def first_token_latency(
    llm: Any,
    inputs: Sequence[Any],
    params: Sequence[Any],
    load: Load,
    speaks: Speaks,
    *,
    timeout: float,
    lora_request: Any = None,
) -> Latency:
    """Serve each of vLLM's `inputs` once by `llm`, a `vllm.LLM` in this process that serves nothing else meanwhile.

    `params`: the SamplingParams of each, n=1. Warm the engine up before: what it compiles would be waited for. Raises
    `WaitTimeout` when not all are done after `timeout` seconds; those that are under way are then given up.
    """
    engine = _VllmEngine(llm, inputs, params, lora_request)
    try:
        return summary(drive(engine, len(inputs), load, speaks, timeout), load)
    finally:
        engine.give_up()


def drive(
    engine: Engine,
    requests: int,
    load: Load,
    speaks: Speaks,
    timeout: float,
    clock: Callable[[], float] = perf_counter,
    rest: Callable[[float], None] = sleep,
) -> list[Waited]:
    """What each request waited for, in order.

    One that arrives during a step of the engine is taken after it, and has waited since it arrived. Raises
    `WaitTimeout`.
    """
    waited: list[Waited] = []
    start = now = clock()
    while len(waited) < requests or engine.unfinished():
        if now - start > timeout:
            raise WaitTimeout("the latency measurement", f"{requests} requests, {load}", timeout, "lower the load")
        due = _due(load, len(waited), engine.unfinished(), start, now) if len(waited) < requests else inf
        if due <= now:
            waited.append(Waited(due))
            engine.add(len(waited) - 1)
        elif engine.unfinished():
            moved = engine.step()
            now = clock()
            for number, tokens in moved:
                _look(waited[number], tokens, speaks, now)
        else:
            rest(due - now)
        now = clock()
    return waited


def summary(waited: Sequence[Waited], load: Load) -> Latency:
    """Percentiles over all requests, and over those that spoke."""
    first = [each.first - each.arrived for each in waited]
    spoken = [each.spoken - each.arrived for each in waited if each.spoken < inf]
    return Latency(
        load=str(load),
        requests=len(waited),
        silent=len(waited) - len(spoken),
        tokens=sum(each.tokens for each in waited),
        first_p50=_percentile(first, 50),
        first_p95=_percentile(first, 95),
        spoken_p50=_percentile(spoken, 50),
        spoken_p95=_percentile(spoken, 95),
    )


def _due(load: Load, number: int, unfinished: int, start: float, now: float) -> float:
    """When request `number` arrives; infinite where it waits for another to be done."""
    if isinstance(load, Arrivals):
        return start + number / load.per_second
    return now if unfinished < load.requests else inf


def _look(waited: Waited, tokens: Sequence[int], speaks: Speaks, now: float) -> None:
    waited.tokens = len(tokens)
    if tokens and waited.first == inf:
        waited.first = now
    if waited.spoken == inf and speaks(tokens):
        waited.spoken = now


def _percentile(values: Sequence[float], share: float) -> float:
    return float(np.percentile(values, share)) if values else float("nan")


class _VllmEngine:
    """vLLM, a step at a time."""

    def __init__(self, llm: Any, inputs: Sequence[Any], params: Sequence[Any], lora_request: Any) -> None:
        self._llm, self._engine, self._lora = llm, llm.llm_engine, lora_request
        self._requests = list(zip(inputs, params, strict=True))
        self._numbers: dict[str, int] = {}

    def add(self, number: int) -> None:
        from vllm.renderers.inputs.preprocess import parse_model_prompt
        from vllm.sampling_params import RequestOutputKind

        given, params = self._requests[number]
        renderer, name = self._llm.renderer, f"latency-{number}"
        (prepared,) = renderer.render_cmpl(
            [parse_model_prompt(self._llm.model_config, given)], renderer.default_cmpl_tok_params
        )
        params = params.clone()
        params.output_kind = RequestOutputKind.CUMULATIVE
        self._engine.add_request(name, prepared, params, lora_request=self._lora)
        self._numbers[name] = number

    def step(self) -> list[tuple[int, Sequence[int]]]:
        moved = []
        for output in self._engine.step():
            moved.append((self._numbers[output.request_id], output.outputs[0].token_ids))
            if output.finished:
                del self._numbers[output.request_id]
        return moved

    def unfinished(self) -> int:
        return len(self._numbers)

    def give_up(self) -> None:
        """Leave the engine idle."""
        if self._numbers:
            self._engine.abort_request(list(self._numbers))
