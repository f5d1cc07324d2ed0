"""The protocol: what is written is read, and what is not of it is refused in words."""

import base64
import json
import re
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.remote import wire
from rewards.remote.wire import WireError
from rewards.types import RewardInput
from rlhf_platform.types import FAILURE_KINDS, Failed, StopReason

TEXT = st.text() | st.just("half a pair: \ud800")
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
INPUT = st.builds(
    RewardInput,
    prompt_id=TEXT,
    text=TEXT,
    tokens=st.lists(st.integers(0, 2**40), max_size=5).map(tuple),
    logprobs=st.lists(NUMBER, max_size=5).map(tuple),
    reference=TEXT,
    language=TEXT,
    audio=TEXT,
    speaker=TEXT,
    duration=NUMBER,
    stop_reason=st.sampled_from(StopReason),
    metadata=st.dictionaries(TEXT, JSON, max_size=3),
)
FAILED = st.builds(Failed, st.sampled_from(FAILURE_KINDS), st.from_regex(r"\A\w+( \w+){0,5}\Z"))


@given(st.lists(INPUT, max_size=3), st.dictionaries(TEXT, JSON, max_size=2), st.dictionaries(TEXT, st.binary()))
def test_a_request_is_read_as_it_was_meant(
    samples: list[RewardInput], kwargs: dict[str, Any], audio: dict[str, bytes]
) -> None:
    clips = {path: base64.b64encode(content) for path, content in audio.items()}
    body = wire.write_request(kwargs, [wire.write_sample(sample) for sample in samples], clips)
    assert json.loads(body)["version"] == 1
    assert wire.read_request(body) == wire.Request(kwargs, samples, audio)


@given(st.lists(NUMBER | st.dictionaries(TEXT, NUMBER, min_size=1, max_size=3) | FAILED, max_size=5))
def test_answers_are_read_as_they_were_meant(answers: list[Any]) -> None:
    assert wire.read_results(wire.write_results(answers), len(answers)) == answers


def test_a_sample_made_by_hand_needs_two_fields() -> None:
    request = {"version": 1, "samples": [{"prompt_id": "p", "text": "t"}]}
    assert wire.read_request(json.dumps(request).encode()).samples == [RewardInput("p", "t")]
    assert wire.read_request(wire.write_request({}, [wire.write_sample(RewardInput("p", "t"))], {})).samples == [
        RewardInput("p", "t")
    ]


def test_members_that_are_not_known_are_ignored() -> None:
    sample = {"prompt_id": "p", "text": "t", "mood": "good"}
    body = json.dumps({"version": 1, "samples": [sample], "from": "elsewhere"}).encode()
    assert wire.read_request(body).samples == [RewardInput("p", "t")]
    assert wire.read_results(b'{"version": 1, "results": [1], "took": 3}', 1) == [1]


def of_sample(**fields: object) -> dict[str, Any]:
    return {"version": 1, "samples": [{"prompt_id": "p", "text": "t", **fields}]}


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ([], "the message is []: an object is needed"),
        ({"samples": []}, "there is no version: version 1 of the protocol is needed"),
        ({"version": 2, "samples": []}, "version is 2: version 1"),
        ({"version": "1", "samples": []}, 'version is "1": version 1'),
        ({"version": True, "samples": []}, "version is true: version 1"),
        ({"version": 1}, "there is no samples: a list is needed"),
        ({"version": 1, "samples": {}}, "samples is {}: a list is needed"),
        ({"version": 1, "samples": [3]}, "samples[0] is 3: an object is needed"),
        ({"version": 1, "samples": [{"text": ""}]}, "samples[0] has no prompt_id"),
        ({"version": 1, "samples": [{"prompt_id": ""}]}, "samples[0] has no text"),
        ({"version": 1, "samples": [], "kwargs": None}, "kwargs is null: an object is needed"),
        (of_sample(text=None), "samples[0].text is null: text is needed"),
        (of_sample(tokens=[1, 2.5]), "samples[0].tokens is [1, 2.5]: a list of whole numbers is needed"),
        (of_sample(tokens=[True]), "samples[0].tokens is [true]: a list of whole"),
        (of_sample(logprobs=["a"]), 'samples[0].logprobs is ["a"]: a list of numbers'),
        (of_sample(duration=10**400), "samples[0].duration is 1000"),
        (of_sample(stop_reason="tired"), 'samples[0].stop_reason is "tired": "eos" or "length" is needed'),
        (of_sample(metadata=[]), "samples[0].metadata is []: an object is needed"),
        ({**of_sample(), "audio_base64": {"a": "?"}}, "audio_base64['a'] is \"?\": base64 is needed"),
        ({**of_sample(), "audio_base64": {"a": 3}}, "audio_base64['a'] is 3: base64 is needed"),
    ],
)
def test_a_request_that_is_not_of_the_protocol_is_refused_by_member(message: Any, said: str) -> None:
    with pytest.raises(WireError, match=re.escape(said)):
        wire.read_request(json.dumps(message).encode())


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        (b"", "wrong_shape", "not JSON"),
        (b"\xff\xfe\x00", "wrong_shape", "not JSON"),
        (b"<html>", "wrong_shape", "not JSON"),
        (b"[" * 100_000, "wrong_shape", "not JSON"),
        (b"1" * 5000, "wrong_shape", "not JSON"),
        (b'{"version": 1, "results": [NaN]}', "not_a_number", "NaN is not JSON"),
        (b'{"version": 1, "results": [-Infinity]}', "not_a_number", "-Infinity is not JSON"),
        (b'{"version": 1, "results": 1}', "wrong_shape", "results is 1: a list is needed"),
        (b'{"version": 1, "results": [1, 2]}', "wrong_shape", "2 results for 1 samples"),
        (b'{"version": 3, "results": [1]}', "wrong_shape", "version is 3"),
    ],
)
def test_an_answer_that_is_not_of_the_protocol_is_refused(body: bytes, kind: str, said: str) -> None:
    with pytest.raises(WireError, match=re.escape(said)) as raised:
        wire.read_results(body, 1)
    assert raised.value.kind == kind


@pytest.mark.parametrize(
    ("result", "meant"),
    [
        ({"failed": {"kind": "timeout", "message": "late"}}, Failed("timeout", "late")),
        ({"failed": {"kind": "tired", "message": "of it"}}, Failed("raised", "tired: of it")),
        ({"failed": {}}, Failed("raised", "the server does not say why")),
        ({"failed": {"kind": ["a"], "message": None}}, Failed("raised", "['a']: None")),
        ({"failed": 1.0, "passed": 2.0}, {"failed": 1.0, "passed": 2.0}),
    ],
)
def test_a_failure_is_told_from_a_part_that_is_called_failed(result: Any, meant: object) -> None:
    assert wire.read_results(json.dumps({"version": 1, "results": [result]}).encode(), 1) == [meant]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}, b"bytes", {(1, 2): 3}])
def test_a_sample_that_json_has_no_form_for_cannot_be_written(value: Any) -> None:
    with pytest.raises(WireError, match="sample 'p' cannot be written as JSON") as raised:
        wire.write_sample(RewardInput("p", "t", metadata={"mine": value}))
    assert raised.value.kind == "raised"
    with pytest.raises(WireError, match="sample 'p'"):
        wire.write_sample(RewardInput("p", "t", logprobs=(-sys.float_info.max, -float("inf"))))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (wire.write_error("too late"), "too late"),
        (b"<h1>Bad\n Gateway</h1>", "<h1>Bad Gateway</h1>"),
        (b'{"detail": 3}', '{"detail": 3}'),
        (b"[1]", "[1]"),
        (b"\xff", "\ufffd"),
        (b"", ""),
        (b"x" * 1000, "x" * 300),
    ],
)
def test_what_a_server_says_of_an_error_is_one_short_line(body: bytes, said: str) -> None:
    assert wire.read_error(body) == said
