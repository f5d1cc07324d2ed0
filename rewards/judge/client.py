"""Asks an OpenAI-compatible endpoint for one of some labels: vLLM's server, or any other."""

import asyncio
import json
import math
import os
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rewards.judge.cache import Answer
from rewards.judge.settings import JudgeSettings
from rewards.judge.types import JudgeFailure

Message = Mapping[str, Any]
"""`role`, and `content`: text, or a list of parts where there is audio."""

_TOP = 20
"""Most likely tokens that are asked for; more than vLLM and OpenAI give."""
_SHOWN = 200
"""Characters of an endpoint's words in a message."""
_NO_KEY = "none"
_PROTOCOL = "name an OpenAI-compatible endpoint, as http://127.0.0.1:8000/v1"
_LONGEST_PAUSE = 8.0
"""Seconds that the client waits before it asks again, at most."""


@dataclass(frozen=True)
class Question:
    """What an endpoint is asked."""

    messages: tuple[Message, ...]
    labels: tuple[str, ...]
    ask: str = ""
    """Asks for the verdict after the reasoning; "" where there is none."""


class Endpoint:
    """An endpoint as the settings name it. Connections live in the event loop of the first call."""

    def __init__(self, settings: JudgeSettings) -> None:
        """Raises `JudgeFailure` when the variable of the API key is not set."""
        import openai  # here: it takes a second, which nothing that is timed should wait for

        self._openai: Any = openai
        self._settings = settings
        self._client: Any = None
        self._model = settings.model
        self._finding: asyncio.Lock | None = None
        self._key = os.environ.get(settings.api_key_env, "") if settings.api_key_env else _NO_KEY
        if not self._key:
            raise JudgeFailure("unavailable", f"api_key_env is {settings.api_key_env}: set that variable to the key")

    def __repr__(self) -> str:
        return f"Endpoint({self._settings.judge!r})"

    async def model(self) -> str:
        """The served model: the one of the settings, else the first LoRA listed at /models, else the first model."""
        if not self._model:
            self._finding = self._finding or asyncio.Lock()
            async with self._finding:
                if not self._model:
                    self._model = await self._served()
        return self._model

    async def choose(self, question: Question) -> Answer:
        """The labels that it chooses, one for each vote, or with `expected` their probabilities.

        Raises `JudgeFailure`.
        """
        model, votes = await self.model(), self._settings.votes
        if not self._settings.reasoning_tokens:
            return await self._verdict(model, question.messages, question.labels, votes)
        reasoned = await self._create(
            model=model,
            messages=list(question.messages),
            n=votes,
            max_completion_tokens=self._settings.reasoning_tokens,
            **self._sampling(votes),
        )
        thoughts = [(choice.message.content or "").strip() or "..." for choice in reasoned.choices]
        came = await asyncio.gather(
            *(
                self._verdict(model, (*question.messages, _assistant(thought), _user(question.ask)), question.labels, 1)
                for thought in thoughts
            )
        )
        return _together(came, thoughts[0], *_tokens(reasoned))

    async def close(self) -> None:
        """Let the connections go."""
        if self._client is not None:
            await self._client.close()
        self._client = None

    async def _served(self) -> str:
        listed = getattr(await self._awaited(self._api().models.list()), "data", None)
        if not listed:
            raise JudgeFailure("wrong_shape", f"{self._settings.judge}: /models lists no model; {_PROTOCOL}")
        loras = [model.id for model in listed if getattr(model, "parent", None)]
        return str(loras[0] if loras else listed[0].id)

    async def _verdict(self, model: str, messages: Sequence[Message], labels: Sequence[str], votes: int) -> Answer:
        if self._settings.expected:
            return await self._expected(model, messages, labels)
        vllm = self._settings.structured == "vllm"
        longest = max(len(label.encode()) for label in labels)
        constraint: dict[str, Any] = {"extra_body": _choice(labels)} if vllm else {"response_format": _schema(labels)}
        came = await self._create(
            model=model,
            messages=list(messages),
            n=votes,
            max_completion_tokens=longest + (0 if vllm else 24),  # a token is a byte at least
            **self._sampling(votes),
            **constraint,
        )
        texts = [choice.message.content or "" for choice in came.choices]
        chosen = tuple(self._read(text, labels, vllm) for text in texts)
        if len(chosen) != votes:
            raise JudgeFailure("wrong_shape", f"{self._settings.judge}: {len(chosen)} choices for n={votes}")
        return Answer(chosen, {}, "", *_tokens(came))

    async def _expected(self, model: str, messages: Sequence[Message], labels: Sequence[str]) -> Answer:
        # Of a JSON answer the label is some token or other: the distribution over the first one needs no JSON.
        vllm = self._settings.structured == "vllm"
        came = await self._create(
            model=model,
            messages=list(messages),
            max_completion_tokens=1,
            temperature=0.0,
            logprobs=True,
            top_logprobs=_TOP,
            **({"extra_body": _choice(labels)} if vllm else {}),
        )
        found = came.choices[0].logprobs
        likely = found.content[0].top_logprobs if found and found.content else []
        weights = label_weights([(each.token, each.logprob) for each in likely], labels)
        if not weights:
            said = [each.token for each in likely][:5]
            message = f"no label of {', '.join(labels)} is among the likely first tokens {said}"
            raise JudgeFailure("wrong_shape", f"{self._settings.judge}: {message}; set expected: false")
        return Answer((max(weights, key=weights.__getitem__),), weights, "", *_tokens(came))

    def _read(self, text: str, labels: Sequence[str], plain: bool) -> str:
        try:
            label = text.strip() if plain else json.loads(text)["verdict"]
        except (ValueError, KeyError, TypeError):
            label = None
        if label not in labels:
            what = f"answered {text[:40]!r} where {', '.join(labels)} was due"
            way_out = "set structured: json_schema" if plain else "does it know response_format json_schema?"
            raise JudgeFailure("wrong_shape", f"{self._settings.judge} {what}; {way_out}")
        return str(label)

    def _sampling(self, votes: int) -> dict[str, Any]:
        if votes == 1:
            return {"temperature": 0.0}
        # vLLM 0.32 on the CPU dies of a request with a seed that it prefills in parts.
        seed = {} if self._settings.structured == "vllm" else {"seed": self._settings.seed}
        return {"temperature": self._settings.temperature, **seed}

    async def _create(self, **request: Any) -> Any:
        came = await self._awaited(self._api().chat.completions.create(**request))
        # The client passes on whatever came: a page of HTML as text.
        choices = getattr(came, "choices", None)
        if not choices or any(getattr(choice, "message", None) is None for choice in choices):
            raise JudgeFailure("wrong_shape", f"{self._settings.judge}: the answer has no choices; {_PROTOCOL}")
        return came

    def _api(self) -> Any:
        if self._client is None:
            self._client = self._openai.AsyncOpenAI(
                base_url=self._settings.judge,
                api_key=self._key,
                timeout=self._settings.timeout,
                max_retries=self._settings.retries,
                # What the recipe does not say, a proxy in the environment does not add.
                http_client=self._openai.DefaultAsyncHttpxClient(trust_env=False, verify=ssl.create_default_context()),
            )
        return self._client

    async def _awaited(self, request: Any) -> Any:
        openai, where, seconds = self._openai, self._settings.judge, self._settings.timeout
        try:
            # The client's own timeout is between two bytes; an endpoint that trickles would hold a call for ever.
            async with asyncio.timeout((1 + self._settings.retries) * (seconds + _LONGEST_PAUSE)):
                return await request
        except (TimeoutError, openai.APITimeoutError):
            raise JudgeFailure("timeout", f"{where}: no answer within {seconds:g} s") from None
        except openai.APIStatusError as error:
            kind = "raised" if error.status_code in (400, 422) else "unavailable"
            said = self._without_key(" ".join(error.message.split()))[:_SHOWN]
            raise JudgeFailure(kind, f"{where}: status {error.status_code}: {said}") from None
        except openai.APIConnectionError as error:
            cause = str(error.__cause__ or error)
            raise JudgeFailure("unavailable", f"{where}: {self._without_key(cause)[:_SHOWN]}") from None
        except openai.OpenAIError as error:
            raise JudgeFailure("wrong_shape", f"{where}: {self._without_key(str(error))[:_SHOWN]}") from None
        except ValueError as error:  # an answer that is no JSON
            raise JudgeFailure("wrong_shape", f"{where}: {self._without_key(str(error))[:_SHOWN]}") from None

    def _without_key(self, text: str) -> str:
        return text if self._key == _NO_KEY else text.replace(self._key, "***")


def label_weights(likely: Sequence[tuple[str, float]], labels: Sequence[str]) -> dict[str, float]:
    """Probability of each label from (token, log-prob) of the likely first tokens, made to sum to 1; {} for none.

    A token counts for the label that it begins, when it begins no other.
    """
    weights = dict.fromkeys(labels, 0.0)
    for token, logprob in likely:
        text = token.strip()
        begun = [label for label in labels if text and label.startswith(text)]
        if len(begun) == 1:
            weights[begun[0]] += math.exp(logprob)
    total = sum(weights.values())
    return {label: weight / total for label, weight in weights.items()} if total > 0.0 else {}


def _choice(labels: Sequence[str]) -> dict[str, Any]:
    return {"structured_outputs": {"choice": list(labels)}}


def _schema(labels: Sequence[str]) -> dict[str, Any]:
    verdict = {"type": "string", "enum": list(labels)}
    schema = {
        "type": "object",
        "properties": {"verdict": verdict},
        "required": ["verdict"],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": schema}}


def _together(answers: Sequence[Answer], reasoning: str, prompt_tokens: int, completion_tokens: int) -> Answer:
    """One answer of several verdicts, each after reasoning of its own."""
    weights = {label: sum(answer.weights[label] for answer in answers) / len(answers) for label in answers[0].weights}
    return Answer(
        tuple(answer.labels[0] for answer in answers),
        weights,
        reasoning,
        prompt_tokens + sum(answer.prompt_tokens for answer in answers),
        completion_tokens + sum(answer.completion_tokens for answer in answers),
    )


def _tokens(came: Any) -> tuple[int, int]:
    usage = came.usage
    return (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)


def _assistant(content: str) -> Message:
    return {"role": "assistant", "content": content}


def _user(content: str) -> Message:
    return {"role": "user", "content": content}
