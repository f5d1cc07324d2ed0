import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from rlhf_platform.data.audio import load_audio
from rlhf_platform.data.delivery import trim
from rlhf_platform.data.dialogue import Next
from rlhf_platform.data.simulator import VOICE, LLMUser, ScriptedUser, spoken_line
from rlhf_platform.data.voices import Voice, speak
from rlhf_platform.types import Prompt

KEY = "sk-secret-7"
HISTORY = [
    {"role": "user", "audio": "/a.flac", "text": "my name is anna"},
    {"role": "assistant", "text": "hello anna, sir", "tokens": [4, 2], "reasoning": "what was heard"},
]
PROMPT = Prompt(
    "rl/1", "/b.flac", "aye", "en", metadata={"persona": "you are max", "said": "open the box", "history": HISTORY}
)


@dataclass
class Endpoint:
    """An OpenAI-compatible server of one canned answer."""

    url: str = ""
    answer: str = "thank you"
    status: int = 200
    body: bytes | None = None
    """Instead of a completion."""
    seconds: float = 0.0
    """Before each of the answer's two halves."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    state = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            state.requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            state.keys.append(self.headers["Authorization"])
            message = {"role": "assistant", "content": state.answer}
            completion = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
            choices = [{"index": 0, "finish_reason": "stop", "message": message}]
            body = state.body if state.body is not None else json.dumps(completion | {"choices": choices}).encode()
            try:
                self.send_response(state.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                for half in (body[: len(body) // 2], body[len(body) // 2 :]):
                    time.sleep(state.seconds)
                    self.wfile.write(half)
                    self.wfile.flush()
            except BrokenPipeError:
                pass  # the client has given up

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    yield state
    server.shutdown()
    server.server_close()


def user(endpoint: Endpoint, folder: Path, **changes: Any) -> LLMUser:
    return LLMUser(endpoint.url, "m", KEY, folder, **changes)


def test_a_script_is_followed_whatever_the_reply() -> None:
    coming = [{"audio": "/c.flac", "text": "who are you", "reference": "i am max"}]
    scripted = Prompt("1", "/b.flac", "aye", "en", metadata={"said": "hello", "next": coming})
    assert ScriptedUser().next(scripted, "aye") == Next("/c.flac", "who are you", "i am max")
    assert ScriptedUser().next(PROMPT, "aye") is None


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ("Thank you! And now close it.", "thank you"),
        ('"What is my name?"', "what is my name"),
        ("User: I'd like tea", "i'd like tea"),
        ("<think>what next</think>\nOpen the door", "open the door"),
        ("* ** 🙂 well-done 2 of 3", "well done 2 of 3"),
        (" ".join(["go"] * 20), " ".join(["go"] * 12)),
        ("... 🙂!", ""),
        ("<think>never closed", ""),
        ("", ""),
    ],
)
def test_an_answer_becomes_a_line_to_speak(answer: str, line: str) -> None:
    assert spoken_line(answer) == line


def test_a_model_is_told_the_session_and_its_line_is_spoken(endpoint: Endpoint, tmp_path: Path) -> None:
    llm = user(endpoint, tmp_path)
    said = llm.next(PROMPT, "<think>open the box</think> aye, i open it")
    assert said is not None
    assert (said.text, said.reference) == ("thank you", "")
    [request] = endpoint.requests
    assert request["model"] == "m"
    told = request["messages"][0]["content"]
    assert "described so: you are max\n" in told
    turns = "user: my name is anna\nassistant: hello anna, sir\nuser: open the box\nassistant: aye, i open it\n"
    assert turns in told
    assert "think" not in told
    assert "what was heard" not in told
    assert endpoint.keys == [f"Bearer {KEY}"]
    expected = trim(speak(VOICE, "thank you", 16_000))
    np.testing.assert_allclose(load_audio(said.audio), expected, atol=2**-15)
    assert sf.info(said.audio).samplerate == 16_000
    assert not llm.failures


def test_a_clip_is_named_by_its_words_and_its_voice(endpoint: Endpoint, tmp_path: Path) -> None:
    first = user(endpoint, tmp_path).next(PROMPT, "aye")
    assert user(endpoint, tmp_path).next(PROMPT, "no") == first
    other = user(endpoint, tmp_path, voice=Voice("espeak", "en-us+f2")).next(PROMPT, "aye")
    endpoint.answer = "good bye"
    later = user(endpoint, tmp_path).next(PROMPT, "aye")
    names = {said.audio for said in (first, other, later) if said}
    assert names == {str(path) for path in tmp_path.iterdir()}
    assert len(names) == 3


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"status": 401, "body": f"bad key {KEY}".encode()}, "unavailable"),
        ({"body": b"<html>"}, "undecodable"),
        ({"body": b'{"choices": []}'}, "undecodable"),
        ({"answer": "..."}, "unspeakable"),
        ({"answer": "this line goes on and on and on for many words"}, "too_long"),
        ({"seconds": 0.4}, "timeout"),  # each half within the bound, the whole not
    ],
)
def test_a_failure_ends_the_session_and_is_counted(
    endpoint: Endpoint, tmp_path: Path, changes: dict[str, Any], kind: str
) -> None:
    llm = user(endpoint, tmp_path, timeout=0.6 if kind == "timeout" else 10.0, longest=1.5)
    for name, value in changes.items():
        setattr(endpoint, name, value)
    assert llm.next(PROMPT, "aye") is None
    assert llm.failures == {kind: 1}
    assert llm.problem.startswith(f"{endpoint.url}, model 'm': ")
    assert KEY not in llm.problem
    assert list(tmp_path.iterdir()) == []


def test_an_endpoint_that_is_not_there_ends_the_session(tmp_path: Path) -> None:
    llm = LLMUser("http://127.0.0.1:9/v1", "m", KEY, tmp_path)
    assert llm.next(PROMPT, "aye") is None
    assert llm.failures == {"unavailable": 1}


def test_an_endpoint_that_keeps_failing_is_left_alone(endpoint: Endpoint, tmp_path: Path) -> None:
    llm = user(endpoint, tmp_path)
    endpoint.status, endpoint.body = 403, b"{}"
    for _ in range(5):
        assert llm.next(PROMPT, "aye") is None
    assert len(endpoint.requests) == 3
    assert llm.failures == {"unavailable": 5}


def test_a_failure_between_answers_is_forgotten(endpoint: Endpoint, tmp_path: Path) -> None:
    llm = user(endpoint, tmp_path)
    for status in (403, 403, 200, 403, 403, 200):
        endpoint.status = status
        assert (llm.next(PROMPT, "aye") is None) == (status == 403)


def test_a_voice_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no voice 'zz'"):
        LLMUser("http://127.0.0.1:9/v1", "m", KEY, tmp_path, voice=Voice("espeak", "zz"))
