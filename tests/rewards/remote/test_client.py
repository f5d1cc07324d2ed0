"""The client against servers that do as they should, and against those that do not."""

import asyncio
import base64
import json
import ssl
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rewards.plugin import Term, load_reward
from rewards.pool import RewardPool
from rewards.remote import client, wire
from rewards.remote.client import RemoteReward, probe
from rewards.types import RewardInput
from rlhf_platform.errors import RecipeError
from rlhf_platform.recipe.schema import RewardConfig
from rlhf_platform.types import Failed
from tests.rewards.remote.serving import certificate, http, results, reward_server, scripted

TWO = [RewardInput("p1", "alpha bravo"), RewardInput("p2", "charlie")]
NOBODY = "http://127.0.0.1:9/score"
"""The port of a service that discards; there is none."""


def ask(url: str, samples: Sequence[RewardInput] = TWO, **keys: Any) -> list[Any]:
    """What a client makes of a server, all in all within a bound."""
    keys = {"timeout": 5.0, "retries": 0, "send_audio": False, "token": "", "kwargs": {}} | keys

    async def asked() -> list[Any]:
        reward = RemoteReward(url, **keys)
        try:
            async with asyncio.timeout(60):
                return await reward(list(samples))
        finally:
            await reward.close()

    return asyncio.run(asked())


def failure(answers: list[Any]) -> Failed:
    """The one that both samples have."""
    assert len(answers) == len(TWO)
    assert isinstance(answers[0], Failed)
    assert answers == [answers[0]] * len(TWO)
    return answers[0]


async def says_nothing(_: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def says_little(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(600):
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.1)


async def never_ends(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b" " * 2**16)
        await writer.drain()


async def hangs_up(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


WRONG = {
    "slow": (says_nothing, "timeout", "no answer within 0.4 s"),
    "slow in pieces": (says_little, "timeout", "no answer within 0.4 s"),
    "endless": (never_ends, "wrong_shape", "the answer is longer than 16 MiB"),
    "hangs up": (hangs_up, "unavailable", ""),
    "closes": (b"", "unavailable", "Server disconnected"),
    "cut off": (http(200, b" " * 9)[:-4], "unavailable", ""),
    "not HTTP": (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "unavailable", "SSH-2.0"),
    "500": (http(500, b"<h1>broken</h1>"), "unavailable", "status 500: <h1>broken</h1>"),
    "429": (http(429, b""), "unavailable", "status 429"),
    "404": (http(404, wire.write_error("not here")), "unavailable", "status 404: not here"),
    "204": (http(204, b""), "unavailable", "status 204"),
    "redirect": (http(307, b"", "Location: http://a:b@127.0.0.1:9/x?key=1"), "unavailable", "to http://127.0.0.1:9/x;"),
    "not JSON": (http(200, b"fine"), "wrong_shape", "not JSON"),
    "NaN": (http(200, b'{"version": 1, "results": [1, NaN]}'), "not_a_number", "NaN is not JSON"),
    "version": (http(200, b'{"version": 2, "results": [1, 2]}'), "wrong_shape", "version is 2"),
    "no results": (http(200, b'{"version": 1}'), "wrong_shape", "there is no results"),
    "length": (results(1.0), "wrong_shape", "1 results for 2 samples"),
}


@pytest.mark.parametrize(("answer", "kind", "said"), WRONG.values(), ids=WRONG)
def test_a_server_that_goes_wrong_is_a_failure_of_its_kind(answer: Any, kind: str, said: str) -> None:
    with scripted(answer) as server:
        failed = failure(ask(server.url, timeout=5.0 if answer is never_ends else 0.4))
        assert (failed.kind, said in failed.message) == (kind, True), failed
        assert failed.message.startswith(server.url)
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "url", [NOBODY, "http://no-such-host.invalid/score", f"http://{'a' * 70}.example/score", "https://127.0.0.1:9/"]
)
def test_a_server_that_is_not_there_is_unavailable(url: str) -> None:
    assert failure(ask(url, timeout=20.0)).kind == "unavailable"


@pytest.mark.parametrize("name", WRONG)
def test_only_what_may_pass_is_asked_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LONGEST_ANSWER", 2**20)
    with scripted(WRONG[name][0], WRONG[name][0], results(1.0, 2.0)) as server:
        answers = ask(server.url, retries=2, timeout=1.0)
        passing = name in ("slow", "slow in pieces", "hangs up", "closes", "cut off", "not HTTP", "500", "429")
        assert len(server.requests) == (3 if passing else 1)
        assert (answers == [1.0, 2.0]) == passing


def test_it_gives_up_after_the_retries() -> None:
    with scripted(http(503, b"full")) as server:
        assert failure(ask(server.url, retries=2)).message.endswith("status 503: full")
        assert len(server.requests) == 3


def test_retry_after_is_kept_to_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(http(429, b"", "Retry-After: 1"), results(1.0, 2.0)) as server:
        before = time.monotonic()
        assert ask(server.url, retries=1) == [1.0, 2.0]
        assert time.monotonic() - before >= 1.0
    monkeypatch.setattr(client, "LONGEST_PAUSE", 0.01)
    with scripted(http(503, b"", "Retry-After: 99999999"), results(1.0, 2.0)) as server:
        assert ask(server.url, retries=1) == [1.0, 2.0]


def test_a_retry_date_is_no_reason_to_fail() -> None:
    with scripted(http(503, b"", "Retry-After: Fri, 31 Dec 1999 23:59:59 GMT"), results(1.0, 2.0)) as server:
        assert ask(server.url, retries=1) == [1.0, 2.0]


def test_a_server_may_close_its_connections_as_it_pleases() -> None:
    with scripted(results(1.0, 2.0)) as server, asyncio.Runner() as runner:  # it does so after each answer
        reward = RemoteReward(server.url, timeout=5.0, retries=0, send_audio=False, token="", kwargs={})
        assert [runner.run(reward(TWO)) for _ in range(5)] == [[1.0, 2.0]] * 5
        runner.run(reward.close())


def test_numbers_dicts_and_failures_come_as_the_server_says() -> None:
    failed = {"failed": {"kind": "crashed", "message": "died"}}
    with scripted(results({"a": 1, "failed": 2}, failed)) as server:
        assert ask(server.url) == [{"a": 1, "failed": 2}, Failed("crashed", "died")]


def test_no_proxy_of_the_environment_and_no_file_of_passwords_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", NOBODY)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    with scripted(results(1.0, 2.0)) as server:
        assert ask(server.url) == [1.0, 2.0]
        assert "authorization" not in server.requests[0][0].lower()


def test_the_token_goes_into_the_header_and_nowhere_else() -> None:
    async def repeat(writer: asyncio.StreamWriter) -> None:
        writer.write(http(403, server.requests[-1][0].encode()))

    with scripted(repeat) as server:
        failed = failure(ask(server.url, token="s3cret\n"))
        assert "Authorization: Bearer s3cret\r\n" in server.requests[0][0]
        assert "Bearer ***" in failed.message
        assert "s3cret" not in failed.message
    keys = {"url": NOBODY, "timeout": 1.0, "retries": 0, "send_audio": False, "kwargs": {}}
    assert "s3cret" not in repr(RemoteReward(**keys, token="s3cret"))
    with pytest.raises(ValueError, match="cannot stand in a header") as raised:
        RemoteReward(**keys, token="s3cret\nHost: elsewhere")
    assert "s3cret" not in str(raised.value)


def test_a_clip_goes_once_in_a_request_and_a_missing_one_fails_its_samples_alone(tmp_path: Path) -> None:
    clip, gone = tmp_path / "a.wav", str(tmp_path / "gone.wav")
    clip.write_bytes(b"RIFF")
    paths = (str(clip), gone, str(clip), "")
    samples = [RewardInput(f"p{number}", "text", audio=path) for number, path in enumerate(paths)]
    with scripted(results(1.0, 2.0, 3.0)) as server:
        answers = ask(server.url, samples, send_audio=True)
        sent = json.loads(server.requests[0][1])
    assert sent["audio_base64"] == {str(clip): base64.b64encode(b"RIFF").decode()}
    assert [sample["prompt_id"] for sample in sent["samples"]] == ["p0", "p2", "p3"]
    assert answers == [1.0, Failed("raised", f"audio {gone!r} cannot be read: No such file or directory"), 2.0, 3.0]


def test_a_sample_that_cannot_be_written_fails_alone() -> None:
    odd = RewardInput("odd", "text", metadata={"score": float("nan")})
    with scripted(results(1.0)) as server:
        answers = ask(server.url, [odd, TWO[0]])
    assert answers[1] == 1.0
    assert answers[0].kind == "raised"
    assert "sample 'odd' cannot be written as JSON" in answers[0].message


def test_a_request_that_would_be_too_long_is_halved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LONGEST_REQUEST", 2000)
    (tmp_path / "long.wav").write_bytes(b"x" * 3000)
    samples = [RewardInput(f"p{i}", "x" * 400) for i in range(8)]
    long = RewardInput("long", "text", audio=str(tmp_path / "long.wav"))
    fn = "def size(samples):\n    return [len(samples) + len(s.text) / 1000 for s in samples]\n"
    (tmp_path / "mine.py").write_text(fn)
    with reward_server("mine.py:size", tmp_path) as url:
        answers = ask(url, [*samples[:4], long, *samples[4:]], send_audio=True)
    # Three samples of some 600 bytes fit: 4 are 2 and 2, 5 with the long one are 1 and 1, and 3.
    assert answers[:4] + answers[5:] == [2.4] * 4 + [1.4] + [3.4] * 3
    assert answers[4].kind == "raised"
    assert "more than the" in answers[4].message


def test_the_whole_way_from_a_term_with_a_url_to_answers(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def look(sample, factor):\n"
        "    if sample.text == 'bad':\n        raise ValueError('as asked')\n"
        "    if sample.text == 'inf':\n        return float('inf')\n"
        "    data = open(sample.audio, 'rb').read()\n"
        "    return {'bytes': factor * len(data), 'flac': sample.audio.endswith('.flac')  + 0.0}\n"
    )
    (tmp_path / "clip.flac").write_bytes(b"fLaC0")
    inputs = [RewardInput("p", text, audio=str(tmp_path / "clip.flac")) for text in ("good", "bad", "inf")] * 20
    with reward_server("mine.py:look", tmp_path, "s3cret", kwargs={"factor": 2}, concurrency=2) as url:
        config = RewardConfig(url=url, send_audio=True, kwargs={"factor": 2}, token_env="ANY")
        term = Term(config, "look", "rewards[0]", token="s3cret")
        probe(term, 10.0)
        with RewardPool(term) as pool:
            answers = pool.call(inputs)
            assert pool.call(inputs) == answers
    assert answers[0] == {"bytes": 10.0, "flac": 1.0}
    assert [each.kind if isinstance(each, Failed) else None for each in answers] == [
        None,
        "raised",
        "not_a_number",
    ] * 20
    assert isinstance(answers[1], Failed)
    assert (answers[1].term, "ValueError: as asked" in answers[1].message) == ("look", True)


def test_a_term_without_a_server_fails_and_does_not_hang() -> None:
    with RewardPool(Term(RewardConfig(url=NOBODY, retries=1), "score")) as pool:
        assert [answer.kind for answer in pool.call(TWO) if isinstance(answer, Failed)] == ["unavailable"] * 2


def test_the_keywords_of_a_term_make_a_reward() -> None:
    made = load_reward(Term(RewardConfig(url=NOBODY, judge="owner/judge"), "score"))
    assert (made.batched, made.asynchronous) == (True, True)


HEALTH = http(200, wire.write_health("look", True))
PROBES = {
    "not there": ([b""], "", "nothing answers there (Server disconnected); start the server"),
    "no such page": ([http(404, b"")], "", "no reward server answers there (status 404); name the address that scores"),
    "other program": ([http(200, b"<html>")], "", "no reward server of this version answers there (not JSON"),
    "other version": ([http(200, b'{"version": 2, "name": "look"}')], "", "(version is 2: version 1 of the protocol"),
    "no token": (
        [http(401, b"")],
        "",
        "it asks for a token (status 401); name the variable that holds it in rewards[0]",
    ),
    "other token": ([http(403, b"")], "s3cret", "it refuses the token (status 403); set TOKEN to the server's"),
    "other kwargs": ([HEALTH, http(400, b"kwargs are {}")], "", "(status 400: kwargs are {}); mend that in the recipe"),
    "other path": ([HEALTH, http(404, b"")], "", "no reward server answers there (status 404)"),
    "late": ([says_nothing], "", "nothing answers there (no answer within 0.5 s)"),
}


@pytest.mark.parametrize(("answers", "token", "said"), PROBES.values(), ids=PROBES)
def test_a_server_that_a_run_could_not_use_is_found_before_it_starts(answers: Any, token: str, said: str) -> None:
    with scripted(*answers) as server:
        config = RewardConfig(url=f"{server.url}?key=1", token_env="TOKEN" if token else "")
        with pytest.raises(RecipeError) as raised:
            probe(Term(config, "score", "rewards[0]", token=token), 1.0)
    message = str(raised.value)
    assert message.startswith(f"rewards[0].url is {server.url!r}: ")
    assert said in message
    assert "s3cret" not in message


def test_the_probe_asks_beside_the_address_and_with_the_keywords() -> None:
    with scripted(HEALTH, results()) as server:
        probe(Term(RewardConfig(url=server.url, kwargs={"a": 1}, judge="j"), "score"), 10.0)
        (health, _), (score, body) = server.requests
    assert health.startswith("GET /health HTTP/1.1")
    assert score.startswith("POST /score HTTP/1.1")
    assert json.loads(body) == {"version": 1, "kwargs": {"a": 1, "judge": "j"}, "samples": [], "audio_base64": {}}


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://host/score", "http://", "http://h:port/", "http://me:s3cret@h/"]
)
def test_an_address_that_nothing_can_be_sent_to_is_refused(url: str) -> None:
    with pytest.raises(RecipeError, match=r"^rewards\[1\]\.url is ") as raised:
        probe(Term(RewardConfig(url=url), "score", "rewards[1]"), 1.0)
    assert "s3cret" not in str(raised.value)


def test_kwargs_that_json_does_not_have_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"^reward\.url is .*: kwargs cannot be sent as JSON \(Out of range"):
        probe(Term(RewardConfig(url=NOBODY, kwargs={"factor": float("nan")}), "score"), 1.0)


def test_a_certificate_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(file)
    with scripted(results(1.0, 2.0), tls=tls) as server:
        assert "certificate" in failure(ask(server.url)).message.lower()
        assert server.requests == []
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        assert ask(server.url) == [1.0, 2.0]
