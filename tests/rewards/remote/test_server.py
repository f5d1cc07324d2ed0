"""The reference server as any HTTP client sees it."""

import asyncio
import json
import re
from collections.abc import Coroutine, Mapping
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import aiohttp
import pytest

from rewards.plugin import Term
from rewards.pool import RewardPool
from rewards.remote import server, wire
from rewards.remote.client import probe
from rewards.types import RewardInput
from rlhf_platform.errors import RewardError
from rlhf_platform.recipe.schema import RewardConfig
from tests.rewards.remote.serving import reward_server

MINE = """
import os, time

def length(sample, factor=1):
    if sample.text == "die":
        os._exit(3)
    if sample.text == "wait":
        time.sleep(1.5)
    note(sample.text)
    return factor * len(sample.text)

def note(line):
    with open("seen", "a") as seen:
        print(line, file=seen)

def look(sample):
    note(sample.audio)
    return float(os.path.exists(sample.audio) and os.path.getsize(sample.audio))

async def batch(samples):
    return [{"n": len(samples)} for _ in samples]
"""
JSON = {"Content-Type": "application/json"}
Said = tuple[int, Mapping[str, str], Any]
"""Status, headers and body of an answer."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


async def send(url: str, body: bytes | None, headers: Mapping[str, str] = JSON) -> Said:
    method = "GET" if body is None else "POST"
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.request(method, url, data=body, headers=headers, timeout=timeout) as answer:
        text = await answer.text()
        is_json = answer.content_type == JSON["Content-Type"]
        return answer.status, answer.headers, json.loads(text) if is_json else text


def said(*asked: Coroutine[Any, Any, Said]) -> list[Said]:
    """The answers to requests that are sent at the same time."""

    async def together() -> list[Said]:
        return await asyncio.gather(*asked)

    return asyncio.run(together())


def request(*texts: str, **members: object) -> bytes:
    samples = [{"prompt_id": "p", "text": text} for text in texts]
    return json.dumps({"version": 1, "samples": samples} | members).encode()


def test_it_says_what_it_is_and_scores(folder: Path) -> None:
    with reward_server("mine.py:batch", folder) as url:
        [(status, _, health)] = said(send(url.replace("score", "health"), None))
        assert (status, health) == (200, {"version": 1, "name": "batch", "batched": True})
        [(status, _, answer)] = said(send(url, request("a", "b", "c")))
        assert (status, answer) == (200, {"version": 1, "results": [{"n": 3.0}] * 3})
        assert said(send(url, request()))[0][2] == {"version": 1, "results": []}


def test_a_function_that_kills_its_process_is_a_failure_and_the_server_goes_on(folder: Path) -> None:
    with reward_server("mine.py:length", folder, timeout=0.5) as url:
        [(status, _, answer)] = said(send(url, request("a", "die", "wait", "bravo")))
        assert (status, answer["results"][0], answer["results"][3]) == (200, 1.0, 5.0)
        assert [answer["results"][i]["failed"]["kind"] for i in (1, 2)] == ["crashed", "timeout"]
        assert said(send(url, request("abc")))[0][2]["results"] == [3.0]


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer s3cre", "Bearer s3cret ", "s3cret", "Basic s3cret", "Bearer ä"]
)
def test_nothing_is_said_without_the_token(given: str, folder: Path) -> None:
    with reward_server("mine.py:length", folder, token="s3cret") as url:
        for path, body in (("health", None), ("score", request("a")), ("other", None)):
            headers = JSON | ({"Authorization": given} if given else {})
            [(status, answered, answer)] = said(send(url.replace("score", path), body, headers))
            if given == "Bearer s3cret ":  # white space around a header's value is no part of it
                assert status == (404 if path == "other" else 200)
            else:
                assert (status, answered["WWW-Authenticate"]) == (401, "Bearer")
                assert "s3cret" not in answer["error"]


def test_what_is_no_request_is_refused_in_words(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LONGEST_REQUEST", 1000)
    with reward_server("mine.py:length", folder, kwargs={"factor": 2}) as url:
        [kind, long, text, other, same] = said(
            send(url, request("a"), {"Content-Type": "text/plain"}),
            send(url, request("a" * 2000)),
            send(url, b'{"version": 1, "samples": [{"text": NaN}]}'),
            send(url, request("a", kwargs={"factor": 3})),
            send(url, request("a", kwargs={"factor": 2})),
        )
    assert kind[::2] == (415, {"version": 1, "error": "the content type is text/plain: application/json is needed"})
    assert long[0] == 413
    assert text[::2] == (400, {"version": 1, "error": "NaN is not JSON: a finite number is needed"})
    assert other[0] == 400
    assert other[2]["error"].startswith("kwargs are {'factor': 3}, but this server was started with {'factor': 2}")
    assert same[::2] == (200, {"version": 1, "results": [2.0]})


def test_more_requests_than_it_takes_wait_a_while_and_are_sent_away(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "UNDER_WAY", 1)
    with reward_server("mine.py:length", folder, queue=0.5) as url:
        answers = said(send(url, request("wait")), send(url, request("wait")))
        assert sorted(status for status, _, _ in answers) == [200, 503]
        away = next(answer for answer in answers if answer[0] == 503)
        assert away[1]["Retry-After"] == "1"
        assert away[2]["error"] == "busy: 1 requests are under way, and none ended within 0.5 s"
        assert said(send(url, request("a")))[0][0] == 200
    with reward_server("mine.py:length", folder, queue=30.0) as url:
        answers = said(send(url, request("wait")), send(url, request("a")))
        assert [status for status, _, _ in answers] == [200, 200]


def test_a_request_whose_client_has_gone_is_not_scored(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "UNDER_WAY", 1)

    async def gives_up(url: str) -> None:
        await asyncio.sleep(0.3)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(send(url, request("given up")), 0.5)

    async def together(url: str) -> None:
        await asyncio.gather(send(url, request("wait")), gives_up(url))
        await send(url, request("last"))

    with reward_server("mine.py:length", folder) as url:
        asyncio.run(together(url))
    assert (folder / "seen").read_text().split() == ["wait", "last"]


def test_a_clip_is_a_file_while_it_is_scored(folder: Path) -> None:
    samples = [{"prompt_id": "p", "text": "t", "audio": audio} for audio in ("a/b.wav", "/etc/x.../../y", "here.wav")]
    (folder / "here.wav").write_bytes(b"123")
    body = request(samples=samples, audio_base64={"a/b.wav": "UklGRg==", "/etc/x.../../y": "", "unused": "QQ=="})
    with reward_server("mine.py:look", folder) as url:
        assert said(send(url, body))[0][2]["results"] == [4.0, 0.0, 3.0]
    wav, odd, here = map(Path, (folder / "seen").read_text().split())
    assert (wav.suffix, odd.suffix, here) == (".wav", "", Path("here.wav"))
    assert wav.parent == odd.parent
    assert not wav.parent.exists()


def test_the_server_of_the_page_is_one(folder: Path) -> None:
    page = (Path(__file__).parents[3] / "docs/reward_server.md").read_text()
    [program] = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {"__name__": "my_server"}
    exec(program, names)
    with ThreadingHTTPServer(("127.0.0.1", 0), names["Handler"]) as served:
        Thread(target=served.serve_forever, daemon=True).start()
        term = Term(RewardConfig(url=f"http://127.0.0.1:{served.server_port}/score"), "length")
        probe(term, 10.0)
        with RewardPool(term) as pool:
            assert pool.call([RewardInput("p", text) for text in ("", "alpha")]) == [0.0, 5.0]
        served.shutdown()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "example.org"])
def test_it_listens_beyond_loopback_with_a_token_only(host: str) -> None:
    term = Term(RewardConfig(fn="rewards.asr:wer_reward"), "wer")
    with pytest.raises(RewardError, match=f"^--host is {host}: others can reach that, and there is no token"):
        server.serve(term, host, 0, "", print)
