"""Latencies by a clock that is scripted, and of the real engine on a tiny checkpoint."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

import numpy as np
import pytest

from rlhf_platform.errors import WaitTimeout
from rlhf_platform.types import Prompt
from rollout.engine import RolloutEngine, SamplingSettings
from rollout.latency import Arrivals, InFlight, Load, Waited, drive, first_token_latency, spoken, summary

ANSWER = 9
"""The token after which a reply is spoken."""


def speaks(tokens: Sequence[int]) -> bool:
    return ANSWER in tokens[:-1]


@dataclass
class Scripted:
    """Takes 1 s to take a request and 2 s for a step, in which every request gets the next of its tokens."""

    completions: Sequence[Sequence[int]]
    now: float = 100.0
    under_way: dict[int, int] = field(default_factory=dict)
    rests: list[float] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def rest(self, seconds: float) -> None:
        self.rests.append(seconds)
        self.now += seconds

    def add(self, number: int) -> None:
        self.now += 1.0
        self.under_way[number] = 0

    def step(self) -> list[tuple[int, Sequence[int]]]:
        self.now += 2.0
        moved = []
        for number in list(self.under_way):
            self.under_way[number] += 1
            moved.append((number, self.completions[number][: self.under_way[number]]))
            if self.under_way[number] == len(self.completions[number]):
                del self.under_way[number]
        return moved

    def unfinished(self) -> int:
        return len(self.under_way)


@pytest.mark.parametrize("text", ["", " ", "<thi", "<think>", "<think>red", "<think>red</thin", "<think>red</think> "])
def test_nothing_of_a_trace_is_spoken(text: str) -> None:
    assert not spoken(text)


@pytest.mark.parametrize("text", ["a", "<b", "<thin ice", "<think>red</think> a", "<think></think><"])
def test_the_reply_is_spoken_from_its_first_letter_on(text: str) -> None:
    assert spoken(text)


def driven(engine: Scripted, load: Load, timeout: float = 1000.0) -> list[Waited]:
    return drive(engine, len(engine.completions), load, speaks, timeout, engine.clock, engine.rest)


def test_a_closed_loop_keeps_so_many_in_flight_and_counts_from_the_arrival() -> None:
    engine = Scripted([[1, ANSWER, 2], [1], [ANSWER, 3]])
    # 0 arrives at 100, 1 at 101, a step ends at 104 and 1 is done; 2 arrives at 104, steps end at 107 and 109.
    assert driven(engine, InFlight(2)) == [
        Waited(100.0, 104.0, 109.0, 3),
        Waited(101.0, 104.0, inf, 1),
        Waited(104.0, 107.0, 109.0, 2),
    ]
    assert engine.rests == []


def test_an_open_loop_rests_until_the_next_and_counts_the_wait_for_a_busy_engine() -> None:
    engine = Scripted([[1, 1], [1], [1]])
    # Due at 100, 104 and 108. The first is taken by 101, its steps end at 103 and 105; the second waits since 104.
    assert driven(engine, Arrivals(0.25)) == [
        Waited(100.0, 103.0, inf, 2),
        Waited(104.0, 108.0, inf, 1),
        Waited(108.0, 111.0, inf, 1),
    ]
    assert engine.rests == []
    idle = Scripted([[1], [1]])
    assert [each.arrived for each in driven(idle, Arrivals(0.1))] == [100.0, 110.0]
    assert idle.rests == [7.0]


def test_a_measurement_that_takes_too_long_says_what_it_waited_for() -> None:
    with pytest.raises(WaitTimeout, match="the latency measurement waited 3 s for 2 requests, 1 in flight: lower"):
        driven(Scripted([[1] * 9, [1]]), InFlight(1), timeout=3.0)


def test_percentiles_are_of_the_waits_and_silence_counts_apart() -> None:
    rng = np.random.default_rng(0)
    first, more = rng.exponential(size=40), rng.exponential(size=40)
    waited = [
        Waited(5.0 * i, 5.0 * i + a, inf if i % 4 == 0 else 5.0 * i + a + b, 3)
        for i, (a, b) in enumerate(zip(first, more, strict=True))
    ]
    found = summary(waited, Arrivals(0.2))
    waits = [a + b for i, (a, b) in enumerate(zip(first, more, strict=True)) if i % 4]
    assert (found.load, found.requests, found.silent, found.tokens) == ("0.2 a second", 40, 10, 120)
    assert (found.first_p50, found.first_p95) == pytest.approx(np.percentile(first, [50, 95]))
    assert (found.spoken_p50, found.spoken_p95) == pytest.approx(np.percentile(waits, [50, 95]))
    assert np.isnan(summary([Waited(0.0, 1.0)], InFlight(1)).spoken_p50)


@pytest.fixture(scope="module")
def engine(tiny_checkpoint: Path) -> Iterator[RolloutEngine]:
    engine = RolloutEngine("qwen3_asr", tiny_checkpoint, "float32", max_tokens=256, max_sequences=4, kv_cache_gib=0.1)
    yield engine
    engine.close()


@pytest.mark.parametrize("load", [InFlight(2), Arrivals(1000.0)], ids=str)
def test_the_real_engine_gives_the_same_tokens_one_step_at_a_time(
    load: Load, engine: RolloutEngine, clips: list[Prompt]
) -> None:
    greedy = SamplingSettings(samples=1, temperature=0.0, max_new_tokens=8, seed=0)
    expected = engine.generate(clips, greedy)
    engine.forget()
    params = [engine._params(prompt, greedy) for prompt in clips]
    kinds = [each.output_kind for each in params]
    inputs = [engine._adapter.vllm_prompt(prompt) for prompt in clips]
    seen: list[tuple[int, ...]] = []

    def third(tokens: Sequence[int]) -> bool:
        seen.append(tuple(tokens))
        return len(tokens) >= 3

    found = first_token_latency(engine._llm, inputs, params, load, third, timeout=120.0)
    assert (found.requests, found.tokens) == (len(clips), sum(len(each.tokens) for each in expected))
    assert found.silent == sum(len(each.tokens) < 3 for each in expected)
    assert {each.tokens[: n + 1] for each in expected for n in range(min(3, len(each.tokens)))} <= set(seen)
    assert 0.0 < found.first_p50 <= found.first_p95
    with pytest.raises(WaitTimeout):
        first_token_latency(engine._llm, inputs, params, load, third, timeout=0.0)
    # The engine is as it was, idle and with the same answers; so are the parameters.
    assert engine._llm.llm_engine.get_num_unfinished_requests() == 0
    assert [each.output_kind for each in params] == kinds
    assert [s.tokens for s in engine.generate(clips, greedy)] == [s.tokens for s in expected]
