"""A judge that speaks OpenAI's protocol on a free loopback port, and decides by a rule of the test's."""

import asyncio
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import web

from tests.rewards.remote.serving import a_loop

Rule = Callable[[str, str], float]
"""Probability that the first of two replies is better."""


@dataclass
class Endpoint:
    """What was asked of it."""

    rule: Rule
    url: str = ""
    requests: list[dict[str, object]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    """Authorization headers."""

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "rule", "object": "model", "created": 0}]})

    async def chat(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self.requests.append(asked)
        self.keys.add(request.headers.get("Authorization", ""))
        text = asked["messages"][-1]["content"]
        first, second = (re.findall(rf"^{label}: (.*)$", text, re.MULTILINE)[-1] for label in "AB")
        likely = self.rule(first, second)
        choices = []
        for number in range(asked.get("n") or 1):
            # Votes come in the rule's proportions: of ten, seven are A where it says 0.7.
            chosen = "A" if (number + 0.5) / (asked.get("n") or 1) < likely else "B"
            choices.append({"index": number, "finish_reason": "stop", "message": _said(chosen)})
        if asked.get("logprobs"):
            choices[0]["logprobs"] = {"content": [_token(likely)]}
        usage = {"prompt_tokens": 90, "completion_tokens": len(choices), "total_tokens": 90 + len(choices)}
        body = {"id": "x", "object": "chat.completion", "created": 0, "model": "rule", "choices": choices}
        return web.json_response(body | {"usage": usage})


@contextmanager
def judging(rule: Rule) -> Iterator[Endpoint]:
    endpoint = Endpoint(rule)
    app = web.Application()
    app.add_routes([web.get("/v1/models", endpoint.models), web.post("/v1/chat/completions", endpoint.chat)])
    with a_loop() as loop:

        async def start() -> web.AppRunner:
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            return runner

        runner = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
        endpoint.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        yield endpoint
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)


def _said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def _token(likely: float) -> dict[str, object]:
    each = [{"token": label, "logprob": math.log(p), "bytes": None} for label, p in (("A", likely), ("B", 1 - likely))]
    return {**max(each, key=lambda token: float(str(token["logprob"]))), "top_logprobs": each}
