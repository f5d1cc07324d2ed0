"""A judge against an endpoint that says what it is told to."""

import asyncio
import base64
import io
import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import soundfile
from aiohttp import web

from rewards.judge.judging import PairJudge
from rewards.judge.settings import JudgeSettings
from rewards.judge.types import Exchange, JudgeFailure, Verdict
from rlhf_platform.errors import RecipeError
from tests.rewards.judge.endpoint import Body, endpoint, prefers, shown

T = TypeVar("T")
EXCHANGE = Exchange("you are zoe.", (("user", "hello"), ("assistant", "hi there")), "lift the cup")
GOOD, BAD = "i lift the cup", "no"
NOBODY = "http://127.0.0.1:9/v1"
"""The port of a service that discards; there is none."""
VOTING: dict[str, Any] = {"expected": False}


def judged(url: str, then: Callable[[PairJudge], Awaitable[T]], **keys: Any) -> T:
    async def go() -> T:
        judge = PairJudge(JudgeSettings(judge=url, **{"retries": 0, "timeout": 60.0} | keys))
        try:
            async with asyncio.timeout(120):
                return await then(judge)
        finally:
            await judge.close()

    return asyncio.run(go())


def compared(url: str, **keys: Any) -> Verdict:
    return judged(url, lambda judge: judge.compare(EXCHANGE, GOOD, BAD), **keys)


def failure(url: str, **keys: Any) -> JudgeFailure:
    with pytest.raises(JudgeFailure) as caught:
        compared(url, **keys)
    return caught.value


def test_both_orders_are_asked_and_seen_from_the_candidate() -> None:
    with endpoint(prefers("lift")) as fake:
        verdict = compared(fake.url, **VOTING)
    assert verdict == Verdict(1.0, (1, 1), False, "", 200, 2, False)
    assert [GOOD in shown(body).splitlines()[-3] for body in fake.requests] in ([True, False], [False, True])


def test_a_judge_that_likes_what_comes_first_abstains_at_level_0() -> None:
    with endpoint(lambda body: ["A"] * body["n"]) as fake:
        verdict = compared(fake.url, votes=3, **VOTING)
    assert (verdict.level, verdict.votes, verdict.abstained) == (0.0, (1, 1, 1, -1, -1, -1), True)


def test_one_order_is_asked_without_swap() -> None:
    with endpoint(prefers("lift")) as fake:
        assert compared(fake.url, swap=False, **VOTING).votes == (1,)
        assert len(fake.requests) == 1


def test_votes_are_drawn_at_a_temperature_and_one_vote_is_greedy() -> None:
    with endpoint(prefers("lift")) as fake:
        compared(fake.url, votes=3, temperature=0.9, **VOTING)
        compared(fake.url, **VOTING)
    assert [(body["n"], body["temperature"]) for body in fake.requests] == [(3, 0.9)] * 2 + [(1, 0.0)] * 2
    assert all("seed" not in body for body in fake.requests)  # vLLM on the CPU dies of one


def test_vllm_is_held_to_the_labels() -> None:
    with endpoint(prefers("lift")) as fake:
        compared(fake.url, **VOTING)
    assert fake.requests[0]["structured_outputs"] == {"choice": ["A", "B"]}
    assert fake.requests[0]["model"] == "judge"


def test_another_endpoint_is_held_to_them_by_a_schema() -> None:
    with endpoint(lambda body: ['{"verdict": "B"}'] * body["n"]) as fake:
        verdict = compared(fake.url, structured="json_schema", votes=2, seed=7, swap=False, **VOTING)
    body = fake.requests[0]
    assert verdict.votes == (-1, -1)
    assert body["response_format"]["json_schema"]["schema"]["properties"]["verdict"]["enum"] == ["A", "B"]
    assert body["seed"] == 7


def test_the_expected_level_is_read_off_the_first_token() -> None:
    def say(body: Body) -> list[tuple[str, float]]:
        likes_first = math.log(0.8) if GOOD in shown(body).splitlines()[-3] else math.log(0.6)
        return [(" A", likes_first), ("B", math.log1p(-math.exp(likes_first))), ("the", -9.0)]

    with endpoint(say) as fake:
        verdict = compared(fake.url)
    # first: .8 - .2 = .6; second: .6 - .4 = .2 for the other reply
    assert verdict.level == pytest.approx((0.6 - 0.2) / 2)
    assert verdict.abstained
    assert all((body["logprobs"], body["max_completion_tokens"]) == (True, 1) for body in fake.requests)


def test_labels_that_are_not_among_the_likely_tokens_are_a_failure() -> None:
    with endpoint(lambda body: [("Well", -0.1), ("I", -2.0)]) as fake:
        caught = failure(fake.url)
    assert caught.kind == "wrong_shape"
    assert "'Well', 'I'" in caught.message


def test_reasoning_comes_before_each_verdict_and_is_shown_to_it() -> None:
    thoughts = iter(f"thought {i}" for i in range(10))

    def say(body: Body) -> list[str]:
        free = "structured_outputs" not in body
        return [next(thoughts) for _ in range(body["n"])] if free else ["A"]

    with endpoint(say) as fake:
        verdict = compared(fake.url, reasoning_tokens=32, votes=2, swap=False, **VOTING)
    assert (verdict.votes, verdict.reasoning) == ((1, 1), "thought 0")
    assert verdict.prompt_tokens == 300  # one request for two reasonings, then one for each verdict
    told = [[message["content"] for message in body["messages"][-2:]] for body in fake.requests[1:]]
    assert sorted(told) == [["thought 0", "Better:"], ["thought 1", "Better:"]]


def test_what_was_answered_is_not_asked_again() -> None:
    with endpoint(prefers("lift"), delay=0.05) as fake:

        async def thrice(judge: PairJudge) -> list[Verdict]:
            at_once = await asyncio.gather(*(judge.compare(EXCHANGE, GOOD, BAD) for _ in range(2)))
            return [*at_once, await judge.compare(EXCHANGE, GOOD, BAD)]

        verdicts = judged(fake.url, thrice, **VOTING)
    assert len(fake.requests) == 2
    assert [(each.cached, each.prompt_tokens) for each in verdicts] == [(False, 200), (True, 0), (True, 0)]


def test_answers_outlive_a_judge_in_a_folder_and_a_torn_line_is_passed_over(tmp_path: Path) -> None:
    with endpoint(prefers("lift")) as fake:
        compared(fake.url, cache_dir=str(tmp_path), **VOTING)
        (file,) = tmp_path.iterdir()
        lines = file.read_text().splitlines()
        file.write_text(lines[0] + "\n" + lines[1][:30] + "\n")
        verdict = compared(fake.url, cache_dir=str(tmp_path), **VOTING)
    assert len(fake.requests) == 3
    assert (verdict.level, verdict.cached) == (1.0, False)


def test_the_memory_has_a_bound() -> None:
    with endpoint(prefers("lift")) as fake:

        async def three(judge: PairJudge) -> None:
            for other in ("a", "b", "a"):
                await judge.compare(EXCHANGE, GOOD, other)

        judged(fake.url, three, cache_size=1, swap=False, **VOTING)
    assert len(fake.requests) == 3


def test_a_budget_stops_the_asking_and_names_its_key() -> None:
    with endpoint(prefers("lift")) as fake:

        async def two(judge: PairJudge) -> None:
            await judge.compare(EXCHANGE, GOOD, "a")
            await judge.compare(EXCHANGE, GOOD, "b")

        with pytest.raises(JudgeFailure, match="budget_tokens is 202: 202 are spent") as caught:
            judged(fake.url, two, budget_tokens=202, **VOTING)
        assert caught.value.kind == "budget"
        # 200 prompt tokens at 5 and 2 completion tokens at 10 a million are 0.00102.
        with pytest.raises(JudgeFailure, match=r"budget_cost is 0\.001: 0\.00102 is spent"):
            judged(fake.url, two, budget_cost=0.001, price_in=5.0, price_out=10.0, **VOTING)
    assert len(fake.requests) == 4


def test_an_endpoint_that_is_not_there_is_unavailable() -> None:
    caught = failure(NOBODY)
    assert (caught.kind, caught.failed().kind) == ("unavailable", "unavailable")
    assert NOBODY in caught.message


def test_a_slow_endpoint_is_a_timeout() -> None:
    with endpoint(prefers("lift"), delay=30.0) as fake:
        assert failure(fake.url, timeout=0.2).kind == "timeout"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "raised"), (401, "unavailable"), (404, "unavailable"), (429, "unavailable"), (500, "unavailable")],
)
def test_a_refusal_has_a_kind(status: int, kind: str) -> None:
    with endpoint(lambda _: web.json_response({"error": {"message": "not so"}}, status=status)) as fake:
        caught = failure(fake.url)
    assert caught.kind == kind
    assert f"status {status}" in caught.message


def test_a_busy_endpoint_is_asked_again() -> None:
    answers = iter([web.Response(status=503)])
    with endpoint(lambda body: next(answers, ["A"])) as fake:
        assert compared(fake.url, retries=1, swap=False, **VOTING).votes == (1,)
    assert len(fake.requests) == 2


@pytest.mark.parametrize("text", ["C", "", "A is better"])
def test_an_answer_that_is_no_label_is_a_failure_never_a_level(text: str) -> None:
    with endpoint(lambda _: [text]) as fake:
        assert failure(fake.url, **VOTING).kind == "wrong_shape"


def test_an_answer_that_is_not_of_the_protocol_is_a_failure() -> None:
    with endpoint(lambda _: web.Response(text="<html>", content_type="text/html")) as fake:
        assert failure(fake.url, **VOTING).kind == "wrong_shape"


def test_the_api_key_goes_to_the_endpoint_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    caplog.set_level("DEBUG")
    leaks = web.json_response({"error": {"message": "wrong key sk-very-secret"}}, status=401)
    answers = iter([leaks])
    with endpoint(lambda _: next(answers, ["A"])) as fake:
        caught = failure(fake.url, api_key_env="MY_KEY", swap=False, **VOTING)
        settings = JudgeSettings(judge=fake.url, api_key_env="MY_KEY")
        compared(fake.url, api_key_env="MY_KEY", cache_dir=str(tmp_path), swap=False, **VOTING)
    assert fake.headers[0]["Authorization"] == "Bearer sk-very-secret"
    assert "wrong key ***" in caught.message
    told = [repr(settings), repr(vars(PairJudge(settings))), caplog.text, *(f.read_text() for f in tmp_path.iterdir())]
    assert [text for text in told if "sk-very-secret" in text] == []


def test_a_key_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(JudgeFailure, match="api_key_env is MY_KEY: set that variable"):
        PairJudge(JudgeSettings(judge=NOBODY, api_key_env="MY_KEY"))


def test_a_judge_that_hears_gets_the_users_turns_in_order(tmp_path: Path) -> None:
    clips = []
    for number in range(2):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, np.full(1600 * (number + 1), 0.25), 16_000)
        clips.append(str(path))
    heard = Exchange(EXCHANGE.persona, EXCHANGE.history, EXCHANGE.said, tuple(clips))
    with endpoint(lambda _: ["A"]) as fake:
        judged(fake.url, lambda judge: judge.compare(heard, GOOD, BAD), sees="audio", swap=False, **VOTING)
    parts = fake.requests[0]["messages"][-1]["content"]
    assert [part["type"] for part in parts] == ["text", "input_audio", "input_audio", "text"]
    waves = [soundfile.read(io.BytesIO(base64.b64decode(p["input_audio"]["data"])))[0] for p in parts[1:3]]
    assert [(len(wave), wave[0]) for wave in waves] == [(1600, 0.25), (3200, 0.25)]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"judge": "localhost"}, "judge is 'localhost'"),
        ({"judge": "http://me:secret@host/v1"}, "judge is 'host/v1'"),
        ({"structured": "json"}, "structured is 'json'; allowed vllm, json_schema"),
        ({"votes": 0}, "votes is 0"),
        ({"votes": 3}, "set expected: false"),
        ({"timeout": 0.0}, "timeout is 0"),
        ({"budget_cost": 1.0}, "give price_in and price_out"),
        ({"prompt": "pairwise-9"}, "prompt is 'pairwise-9': there is"),
        ({"prompt": "rubric-1"}, "kind 'rubric'; 'pairwise' is needed"),
    ],
)
def test_settings_that_cannot_be_are_refused(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said) as caught:
        PairJudge(JudgeSettings(**{"judge": NOBODY} | keys))
    assert "secret" not in str(caught.value)
