"""Who speaks the later turns of a session: a script, or a language model with a synthetic voice."""

import asyncio
import hashlib
import json
import os
import re
import ssl
import tempfile
from collections import Counter
from dataclasses import astuple
from pathlib import Path
from time import monotonic
from typing import Any

import soundfile as sf

from rlhf_platform.data.audio import SAMPLE_RATE
from rlhf_platform.data.delivery import trim
from rlhf_platform.data.dialogue import ASSISTANT, USER, Next, session_of, split_reply
from rlhf_platform.data.voices import Voice, speak
from rlhf_platform.errors import DataError
from rlhf_platform.types import Prompt, Waveform

PROMPT = (
    "You play the user of a spoken assistant, who is described so: {persona}\n"
    "The conversation so far:\n{talk}\n"
    "What does the user say next? Answer with one sentence of at most {words} words and nothing else: "
    "plain spoken words, no names before them, no quotation marks."
)
"""What a language model is asked for the user's next line."""

MOST_WORDS = 12
"""Of a user's line; the rest is cut off."""

VOICE = Voice("espeak", "en-us", 160, 50)

_IN_A_ROW = 3  # failures of the endpoint before it is left alone for a while
_REST = 60.0  # seconds


class ScriptedUser:
    """Says what the prompt's script has next."""

    def next(self, prompt: Prompt, reply: str) -> Next | None:
        """The next scripted turn, whatever the reply; None at the script's end."""
        return next(iter(session_of(prompt.audio, prompt.metadata).next), None)


class LLMUser:
    """Says what a language model makes up from the persona, the history and the reply, in a synthetic voice.

    A failure ends the session (`next` gives None) and is counted in `failures`: `timeout`, `unavailable` (no
    connection, or a refusal), `undecodable` (an answer that is not the protocol's), `unspeakable` (no words in it, or
    none that the voice can say), `too_long`. `problem` has the last one in words.
    """

    def __init__(
        self,
        url: str,
        model: str,
        api_key: str,
        folder: str | Path,
        voice: Voice = VOICE,
        timeout: float = 20.0,
        temperature: float = 0.8,
        longest: float = 4.0,
    ):
        """`model` of the OpenAI-compatible server at `url` (`http://localhost:8000/v1`) writes the lines. Their clips
        go into `folder`, each named by what it says and who says it. A line may take `timeout` seconds, a second try
        included; a clip may last `longest` seconds, the backbone's window.

        Raises `DataError` or `ValueError` where the voice is not there.
        """
        speak(voice, "hello", SAMPLE_RATE)
        self.failures: Counter[str] = Counter()
        self.problem = ""
        self._url, self._model, self._key, self._timeout = url, model, api_key or "none", timeout
        self._folder, self._voice = Path(folder).absolute(), voice
        self._temperature, self._longest = temperature, longest
        self._failed_in_a_row, self._resting_until = 0, 0.0
        self._folder.mkdir(parents=True, exist_ok=True)

    def next(self, prompt: Prompt, reply: str) -> Next | None:
        """What the user says to `reply`, a completion's text; None when the session is over.

        An endpoint that fails three times in a row is not asked for a minute, so that a step of many sessions does not
        wait for each.
        """
        try:
            line = spoken_line(self._answer(prompt, reply))
            return Next(str(self._clip(line)), line)
        except _Ended as ended:
            self.failures[ended.kind] += 1
            self.problem = f"{self._url}, model {self._model!r}: {ended}"
            return None

    def _answer(self, prompt: Prompt, reply: str) -> str:
        if monotonic() < self._resting_until:
            raise _Ended("unavailable", f"failed {_IN_A_ROW} times in a row and is left alone for {_REST:g} s")
        try:
            answer = asyncio.run(self._ask(asked(prompt, reply)))
        except _Ended:
            self._failed_in_a_row += 1
            if self._failed_in_a_row >= _IN_A_ROW:
                self._resting_until = monotonic() + _REST
            raise
        self._failed_in_a_row = 0
        return answer

    async def _ask(self, messages: list[dict[str, str]]) -> str:
        import openai  # here: it takes a second to import

        # What nobody named, a proxy in the environment does not add.
        http = openai.DefaultAsyncHttpxClient(trust_env=False, verify=ssl.create_default_context())
        client: Any = openai.AsyncOpenAI(base_url=self._url, api_key=self._key, max_retries=1, http_client=http)
        try:
            # A bound on the whole: the client's own is between two bytes.
            async with asyncio.timeout(self._timeout), client:
                answer = await client.chat.completions.create(
                    model=self._model, messages=messages, max_tokens=48, temperature=self._temperature
                )
            return str(answer.choices[0].message.content or "")
        except (TimeoutError, openai.APITimeoutError):
            raise _Ended("timeout", f"no answer within {self._timeout:g} s") from None
        except openai.APIStatusError as error:  # its words may repeat the key
            raise _Ended("unavailable", f"HTTP status {error.status_code}") from None
        except openai.APIConnectionError:
            raise _Ended("unavailable", "no connection") from None
        except (openai.OpenAIError, ValueError, LookupError, TypeError, AttributeError):
            raise _Ended("undecodable", "the answer has no choices[0].message.content") from None

    def _clip(self, line: str) -> Path:
        if not line:
            raise _Ended("unspeakable", "the answer has no words")
        name = hashlib.sha256(json.dumps([*astuple(self._voice), line]).encode()).hexdigest()[:24]
        path = self._folder / f"{name}.flac"
        if path.is_file():
            return path
        try:
            samples = trim(speak(self._voice, line, SAMPLE_RATE))
        except (DataError, ValueError, LookupError) as error:  # a voice is silent at what it cannot read
            raise _Ended("unspeakable", f"{line!r}: {error}") from None
        if len(samples) > self._longest * SAMPLE_RATE:
            raise _Ended("too_long", f"{line!r} lasts {len(samples) / SAMPLE_RATE:.1f} s; at most {self._longest:g} s")
        _write(path, samples)
        return path


class _Ended(Exception):
    """Why a session has no further turn."""

    def __init__(self, kind: str, problem: str):
        super().__init__(problem)
        self.kind = kind


def asked(prompt: Prompt, reply: str) -> list[dict[str, str]]:
    """What the model is asked after the policy answered `prompt` with `reply`; reasoning traces are left out."""
    session = session_of(prompt.audio, prompt.metadata)
    turns = [(turn.role, turn.text) for turn in session.history]
    turns += [(USER, session.said), (ASSISTANT, split_reply(reply)[1])]
    talk = "\n".join(f"{role}: {text}" for role, text in turns)
    persona = session.persona or "no more is known"
    return [{"role": "user", "content": PROMPT.format(persona=persona, talk=talk, words=MOST_WORDS)}]


def spoken_line(answer: str) -> str:
    """The first sentence of a model's answer as words to be spoken, lower case, at most `MOST_WORDS`; maybe empty."""
    said = split_reply(answer)[1].removeprefix("user:").removeprefix("User:")
    for sentence in re.split(r"[.!?\n]+", said):
        words = re.findall(r"[^\W_]+(?:['’][^\W_]+)*", sentence.lower())
        if words:
            return " ".join(words[:MOST_WORDS]).replace("’", "'")
    return ""


def _write(path: Path, samples: Waveform) -> None:
    """Whole or not at all, as another run may share the folder."""
    handle, unfinished = tempfile.mkstemp(suffix=".flac", dir=path.parent)
    os.close(handle)
    sf.write(unfinished, samples, SAMPLE_RATE, subtype="PCM_16")
    os.replace(unfinished, path)
