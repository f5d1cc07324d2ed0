"""What a reward client and a reward server say to each other: JSON over HTTP, version 1 (docs/reward_server.md).

Both sides of ours are written with this file. JSON is strict: NaN and infinities are no numbers. Members that are not
known are ignored.
"""

import base64
import binascii
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from rewards.answers import Answer
from rewards.types import RewardInput
from rlhf_platform.types import FAILURE_KINDS, Failed, StopReason, Waveform

VERSION = 1
LONGEST_REQUEST = 64 * 2**20
"""Bytes of a request's body, audio included."""
LONGEST_ANSWER = 16 * 2**20
"""Bytes of an answer's body."""
SHOWN = 300
"""Characters of the other side's own words that are repeated."""


class WireError(Exception):
    """A message that is not of this protocol, or cannot be written in it. `kind`: one of `FAILURE_KINDS`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message


@dataclass(frozen=True)
class Request:
    """What a client asks."""

    kwargs: Mapping[str, Any]
    """Of the term in the recipe."""
    samples: list[RewardInput]
    audio: Mapping[str, bytes]
    """Content of audio files, by the path that the samples give."""


def strict_json(text: str | bytes) -> Any:
    """The value. Raises `WireError`: `not_a_number` for NaN and infinities, `wrong_shape` for what is not JSON."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # more digits, or more levels, than Python reads included
        raise WireError("wrong_shape", f"not JSON: {' '.join(str(error).split())}") from None


def write_sample(sample: RewardInput) -> bytes:
    """A sample as it stands in a request. Raises `WireError(raised)` when it holds what JSON does not have."""
    values = vars(sample) | {"metadata": dict(sample.metadata)}
    if values.pop("speech") is not None:
        values["speech"] = base64.b64encode(np.asarray(sample.speech, "<f4").tobytes()).decode()
    try:
        return _dumps(values)
    except (TypeError, ValueError, RecursionError) as error:
        raise WireError("raised", f"sample {sample.prompt_id!r} cannot be written as JSON: {error}") from None


def write_request(kwargs: Mapping[str, Any], samples: Iterable[bytes], audio: Mapping[str, bytes]) -> bytes:
    """A request's body. `samples`: by `write_sample`; `audio`: base64 of files, by the path that the samples give."""
    clips = b",".join(b'%b:"%b"' % (_dumps(path), clip) for path, clip in audio.items())
    parts = (VERSION, _dumps(dict(kwargs)), b",".join(samples), clips)
    return b'{"version":%d,"kwargs":%b,"samples":[%b],"audio_base64":{%b}}' % parts


def read_request(body: bytes) -> Request:
    """The request. Raises `WireError` that names the member, its value and what is needed."""
    message = _read_message(body)
    kwargs = _member(message, "kwargs", "an object", {})
    samples = _member(message, "samples", "a list")
    audio = _member(message, "audio_base64", "an object", {})
    return Request(
        kwargs,
        [_read_sample(sample, f"samples[{index}]") for index, sample in enumerate(samples)],
        {path: _read_clip(path, clip) for path, clip in audio.items()},
    )


def write_results(answers: Sequence[Answer]) -> bytes:
    """An answer's body."""
    results = [
        {"failed": {"kind": answer.kind, "message": answer.message}} if isinstance(answer, Failed) else answer
        for answer in answers
    ]
    return _dumps({"version": VERSION, "results": results})


def read_results(body: bytes, samples: int) -> list[Any]:
    """What a function might have returned for each sample: still to be read by `rewards.answers.read_answer`.

    Raises `WireError` when there is not one result per sample.
    """
    results = _member(_read_message(body), "results", "a list")
    if len(results) != samples:
        raise WireError("wrong_shape", f"{len(results)} results for {samples} samples")
    return [_read_result(result) for result in results]


def write_health(name: str, batched: bool) -> bytes:
    """What a server says of itself."""
    return _dumps({"version": VERSION, "name": name, "batched": batched})


def read_health(body: bytes) -> str:
    """The name of the server's function. Raises `WireError` when no reward server of this version said so."""
    return str(_member(_read_message(body), "name", "text"))


def write_error(message: str) -> bytes:
    """Why a request was refused."""
    return _dumps({"version": VERSION, "error": message})


def read_error(body: bytes) -> str:
    """What a server says went wrong, in one line, whatever form it has; "" when it says nothing."""
    text = body.decode(errors="replace")
    try:
        message = json.loads(text)["error"]
    except (ValueError, TypeError, KeyError, RecursionError):
        message = text
    return " ".join(str(message).split())[:SHOWN]


def _dumps(value: Any) -> bytes:
    # Text stays ASCII: half a surrogate pair, which a policy may write, has no UTF-8.
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def _refuse_constant(name: str) -> float:
    raise WireError("not_a_number", f"{name} is not JSON: a finite number is needed")


def _read_message(body: bytes) -> Mapping[str, Any]:
    message = strict_json(body)
    if not isinstance(message, dict):
        raise WireError("wrong_shape", f"the message is {_show(message)}: an object is needed")
    version = message.get("version")
    if version != VERSION or isinstance(version, bool):
        said = f"version is {_show(version)}" if "version" in message else "there is no version"
        raise WireError("wrong_shape", f"{said}: version {VERSION} of the protocol is needed")
    return message


def _member(message: Mapping[str, Any], name: str, needed: str, default: Any = None) -> Any:
    value = message.get(name, default)
    if not _IS[needed](value):
        said = f"{name} is {_show(value)}" if name in message else f"there is no {name}"
        raise WireError("wrong_shape", f"{said}: {needed} is needed")
    return value


def _read_sample(sample: Any, place: str) -> RewardInput:
    if not isinstance(sample, dict):
        raise WireError("wrong_shape", f"{place} is {_show(sample)}: an object is needed")
    for name in ("prompt_id", "text"):
        if name not in sample:
            raise WireError("wrong_shape", f"{place} has no {name}")
    given = {field.name: sample[field.name] for field in fields(RewardInput) if field.name in sample}
    for name, value in given.items():
        if not _IS[_NEEDED[name]](value):
            raise WireError("wrong_shape", f"{place}.{name} is {_show(value)}: {_NEEDED[name]} is needed")
    return RewardInput(**given | {name: make(given[name]) for name, make in _MADE.items() if name in given})


def _read_speech(text: str) -> Waveform:
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)
    except (ValueError, binascii.Error):
        said = f"speech is {_show(text)}: base64 of 32-bit floats is needed"
        raise WireError("wrong_shape", said) from None


def _read_clip(path: str, clip: Any) -> bytes:
    try:
        return base64.b64decode(clip, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise WireError("wrong_shape", f"audio_base64[{path!r}] is {_show(clip)}: base64 is needed") from None


def _read_result(result: Any) -> Any:
    """A failure is an object under `failed`, where a part that has this name is a number."""
    failed = result.get("failed") if isinstance(result, dict) else None
    if not isinstance(failed, dict):
        return result
    kind, message = failed.get("kind"), failed.get("message", "the server does not say why")
    known = kind in FAILURE_KINDS
    said = " ".join(str(message).split())[:SHOWN]
    return Failed(str(kind), said) if known else Failed("raised", said if kind is None else f"{kind}: {said}")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _show(value: Any) -> str:
    """A JSON value, short."""
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


_STOPS = " or ".join(json.dumps(stop.value) for stop in StopReason)
_IS: Mapping[str, Callable[[Any], bool]] = {
    "text": lambda value: isinstance(value, str),
    "an object": lambda value: isinstance(value, dict),
    "a list": lambda value: isinstance(value, list),
    "a number": _is_number,
    "a list of numbers": lambda value: isinstance(value, list) and all(map(_is_number, value)),
    "a list of whole numbers": lambda value: isinstance(value, list) and all(type(each) is int for each in value),
    _STOPS: lambda value: value in list(StopReason),
}
"""What a value has to be, in words, and whether it is."""
_NEEDED = dict.fromkeys(("prompt_id", "text", "reference", "language", "audio", "speaker", "speech"), "text") | {
    "tokens": "a list of whole numbers",
    "logprobs": "a list of numbers",
    "duration": "a number",
    "stop_reason": _STOPS,
    "metadata": "an object",
}
"""Of each field of a sample."""
_MADE: Mapping[str, Callable[[Any], Any]] = {
    "tokens": tuple,
    "logprobs": lambda numbers: tuple(map(float, numbers)),
    "duration": float,
    "stop_reason": StopReason,
    "speech": _read_speech,
}
"""What a field becomes that JSON has no type for."""
