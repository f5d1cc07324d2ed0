"""An endpoint that speaks the OpenAI protocol and answers as it is told, on a free loopback port."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from aiohttp import web

Body = dict[str, Any]
Scripted = Callable[[Body], Any]
"""From a request's body: texts, one for each choice; a list of (token, log-prob); or a web.Response."""


class FakeEndpoint:
    """`requests`: the bodies it got; `headers`: those that came with each."""

    def __init__(self, say: Scripted, models: list[Mapping[str, Any]], delay: float) -> None:
        self.requests: list[Body] = []
        self.headers: list[Mapping[str, str]] = []
        self.url = ""
        self._say, self._models, self._delay = say, models, delay

    async def list_models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": self._models})

    async def complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        await asyncio.sleep(self._delay)
        said = self._say(body)
        if isinstance(said, web.StreamResponse):
            return said
        likely = bool(said) and isinstance(said[0], tuple)
        texts = [said[0][0]] if likely else said
        choices: list[Any] = [
            {"index": i, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            for i, text in enumerate(texts)
        ]
        if likely:
            top = [{"token": token, "logprob": logprob, "bytes": None} for token, logprob in said]
            choices[0]["logprobs"] = {"content": [{**top[0], "top_logprobs": top}], "refusal": None}
        usage = {"prompt_tokens": 100, "completion_tokens": len(choices), "total_tokens": 100 + len(choices)}
        whole = {"id": "c", "object": "chat.completion", "created": 0, "model": body["model"]}
        return web.json_response({**whole, "choices": choices, "usage": usage})


@contextmanager
def endpoint(say: Scripted, models: tuple[str, ...] = ("judge",), delay: float = 0.0) -> Iterator[FakeEndpoint]:
    listed = [{"id": name, "object": "model", "created": 0, "owned_by": "t"} for name in models]
    fake = FakeEndpoint(say, listed, delay)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_get("/v1/models", fake.list_models)
        app.router.add_post("/v1/chat/completions", fake.complete)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    runner = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield fake
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def shown(body: Body) -> str:
    """The last message of a request, as text."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else json.dumps(content)


def prefers(word: str) -> Scripted:
    """Chooses the reply that has `word` in it, wherever it is shown; one label for each vote."""

    def say(body: Body) -> list[str]:
        first = next(line for line in shown(body).splitlines() if line.startswith("A: "))
        return ["A" if word in first else "B"] * body.get("n", 1)

    return say
