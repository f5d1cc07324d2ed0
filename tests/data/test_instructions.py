import asyncio
import json
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from rlhf_platform.data.instructions import NORMAL, PHRASES, group, instruct, keeps, tag
from rlhf_platform.data.instructions_llm import from_llm
from rlhf_platform.data.manifest import Row
from rlhf_platform.data.prosody import SCALES
from rlhf_platform.errors import DataError

ALL = [dict(zip(SCALES, classes, strict=True)) for classes in product(*(scale.classes for scale in SCALES.values()))]
"""Every combination of classes."""


def row(number: int, **asked: str) -> Row:
    classes = {**NORMAL, **asked}
    metadata = {"asked": classes, "instruction": instruct(classes, random.Random(number))}
    return Row(
        Path("m.jsonl"), number, f"r{number}", Path("a.flac"), "open the red box", "en", "x", 1.0, "train", "CC0", None,
        metadata,
    )  # fmt: skip


@contextmanager
def server(answer: Callable[[dict[str, Any]], web.StreamResponse]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A real server on a free port, which answers each request's body; its address and the bodies that came."""
    came: list[dict[str, Any]] = []
    loop = asyncio.new_event_loop()

    async def handle(request: web.Request) -> web.StreamResponse:
        came.append(await request.json())
        return answer(came[-1])

    async def start() -> tuple[web.AppRunner, int]:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", handle)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return runner, runner.addresses[0][1]

    runner, port = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}/v1", came
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def says(text: str) -> web.Response:
    return web.json_response({"choices": [{"message": {"role": "assistant", "content": text}}]})


def test_every_wording_names_its_classes_and_no_other() -> None:
    for asked in ALL:
        for seed in range(3):
            assert keeps(instruct(asked, random.Random(seed)), asked)


def test_no_wording_of_one_class_stands_for_another() -> None:
    wordings = [
        (name, found, text) for name, classes in PHRASES.items() for found in classes for text in classes[found]
    ]
    for name, found, text in wordings:
        matching = [asked for asked in ALL if keeps(text, asked)]
        assert matching == [{**NORMAL, name: found}]


def test_an_instruction_is_empty_when_all_is_normal_and_drawn_when_not() -> None:
    assert instruct(NORMAL, random.Random(0)) == ""
    asked = {**NORMAL, "rate": "slow", "pitch": "high"}
    drawn = {instruct(asked, random.Random(seed)) for seed in range(200)}
    assert {"slowly, in a high voice", "in a high voice and slowly"} <= drawn
    assert instruct(asked, random.Random(7)) == instruct(asked, random.Random(7))


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("Take your time, unhurried and high", True),
        ("slowly", False),
        ("slowly, in a low voice", False),
        ("slowly, in a high voice, loudly", False),
        ("fast, in a high voice", False),
    ],
)
def test_free_words_must_keep_what_was_measured(said: str, kept: bool) -> None:
    assert keeps(said, {**NORMAL, "rate": "slow", "pitch": "high"}) is kept


def test_tags_stand_before_the_word_that_starts_where_the_pause_ends() -> None:
    starts = (0.0, 0.5, 0.7, 1.0)
    assert tag("open the red box", starts) == "open the red box"
    assert tag("open the red box", starts, [(0.2, 0.52)]) == "open <pause> the red box"
    assert tag("open the red box", starts, [(0.72, 0.98)], 2) == "open the <emphasis> red <pause> box"
    assert tag("open the red box", starts, [(0.2, 0.52)], 1) == "open <pause> <emphasis> the red box"
    assert tag("open the red box", starts, [(0.01, 0.1)]) == "open <pause> the red box"  # never before the first
    assert tag("stop", (0.0,), [(0.1, 0.3)], 0) == "<emphasis> stop"


def test_a_group_is_what_is_off_normal() -> None:
    assert group(NORMAL) == "normal"
    assert group({**NORMAL, "pause": "one"}) == "pause"
    assert group({**NORMAL, "ending": "rising", "rate": "slow"}) == "rate+ending"
    assert group({**NORMAL, "ending": "rising", "rate": "slow", "pitch": "low"}) == "several"


def test_an_llm_rewords_what_it_keeps_and_is_not_asked_where_there_is_nothing() -> None:
    rows = [row(1, rate="slow"), row(2), row(3, energy="loud")]
    with server(lambda body: says('"Speak  slowly, please."\n')) as (url, came):
        reworded = from_llm(rows, url, "tiny")
    assert [each.metadata["instruction"] for each in reworded] == [
        "Speak slowly, please", "", rows[2].metadata["instruction"]
    ]  # fmt: skip
    assert [each.metadata.get("reworded_by") for each in reworded] == ["tiny", None, None]
    assert len(came) == 2
    assert {body["model"] for body in came} == {"tiny"}
    assert any("rate slow" in body["messages"][0]["content"] for body in came)


def test_an_answer_that_rambles_changes_nothing() -> None:
    rows = [row(1, rate="slow")]
    with server(lambda body: says("slowly " * 100)) as (url, _):
        assert from_llm(rows, url, "tiny") == rows


def test_a_busy_server_is_asked_again_as_often_as_allowed() -> None:
    rows = [row(1, rate="slow")]
    answers = iter([web.Response(status=503), says("slowly now")])
    with server(lambda body: next(answers)) as (url, came):
        assert from_llm(rows, url, "tiny")[0].metadata["instruction"] == "slowly now"
    assert len(came) == 2
    with (
        server(lambda body: web.Response(status=503, text="warming up")) as (url, came),
        pytest.raises(DataError, match=r"HTTP 503: warming up \(model 'tiny'\); start the server"),
    ):
        from_llm(rows, url, "tiny", retries=1)
    assert len(came) == 2


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (lambda: web.Response(status=404, text="no such model"), "HTTP 404: no such model"),
        (lambda: web.Response(text="<html>"), "not JSON"),
        (lambda: web.json_response({"error": "x"}), r"no choices\[0\]\.message\.content"),
        (lambda: web.json_response([1]), r"no choices\[0\]\.message\.content"),
    ],
)
def test_a_server_that_is_another_is_named_after_one_request(
    response: Callable[[], web.Response], message: str
) -> None:
    with server(lambda body: response()) as (url, came):
        with pytest.raises(DataError, match=message) as raised:
            from_llm([row(1, rate="slow")], url, "tiny")
        assert str(raised.value).startswith(f"{url}/chat/completions: ")
    assert len(came) == 1


def test_a_server_that_is_not_there_or_not_in_time_is_named() -> None:
    with server(lambda body: says("slowly")) as (url, _):
        gone = url
    with pytest.raises(DataError, match=r"start the server, or correct its address"):
        from_llm([row(1, rate="slow")], gone, "tiny", retries=0)
    with pytest.raises(DataError, match="'nowhere'"):
        from_llm([row(1, rate="slow")], "nowhere", "tiny", retries=0)


def test_a_request_says_what_is_spoken_and_what_is_asked() -> None:
    asked = {"rate": "fast", "pitch": "low", "energy": "soft", "pause": "one", "ending": "falling"}
    with server(lambda body: says("no")) as (url, came):
        from_llm([replace(row(1, **asked), text="close the door")], url, "tiny")
    task = json.dumps(came[0]["messages"])
    assert all(words in task for words in ("close the door", "pitch low", "energy soft", "ending falling"))
