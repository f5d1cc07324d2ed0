"""The reference server: a reward function behind HTTP, in processes of its own as in a run (docs/reward_server.md)."""

import asyncio
import hmac
import ipaddress
import re
import signal
import ssl
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from aiohttp import web

from rewards.plugin import Term, written
from rewards.pool import RewardPool
from rewards.processes.batch import InputBatch, PackedBatch
from rewards.remote import wire
from rewards.remote.wire import WireError
from rlhf_platform.errors import RewardError

UNDER_WAY = 4
"""Requests whose bodies are held and scored at a time. The pool deals their samples out among its processes, so more
would not be faster."""
QUEUE = 30.0
"""Seconds that a request waits for its turn before it is sent away."""
BODY = 60.0
"""Seconds for a request's body to arrive."""
LONGEST = 600.0
"""Seconds for all samples of a request; each call is bounded by the pool's own timeout."""
_GRACE = 2.0
"""Seconds for requests under way when the server is to end."""


class RewardServer:
    """Answers requests with the function of `pool`. `token`: what they must show; "" asks for none."""

    def __init__(self, pool: RewardPool, token: str = "", queue: float = QUEUE) -> None:
        """`queue`: seconds that a request waits for its turn."""
        self._pool, self._token, self._queue = pool, token, queue
        self._slots = asyncio.Semaphore(UNDER_WAY)
        self._threads = ThreadPoolExecutor(UNDER_WAY, "requests")
        self._health = wire.write_health(pool.term.name, written(pool.term).batched)

    def app(self) -> web.Application:
        """The application, for a loop of whoever serves it."""
        app = web.Application(client_max_size=wire.LONGEST_REQUEST, middlewares=[self._checked])
        app.add_routes([web.get("/health", self._say_health), web.post("/score", self._score)])
        return app

    def close(self) -> None:
        """Kill the pool's processes, which ends what is under way."""
        self._pool.close()
        self._threads.shutdown(wait=True, cancel_futures=True)

    @web.middleware
    async def _checked(self, request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
        if self._token and not hmac.compare_digest(given, f"Bearer {self._token}".encode()):
            said = "the Authorization header must be `Bearer` and the server's token"
            return _refusal(401, said, {"WWW-Authenticate": "Bearer"})
        return await handler(request)

    async def _say_health(self, _: web.Request) -> web.Response:
        return web.Response(body=self._health, content_type="application/json")

    async def _score(self, request: web.Request) -> web.Response:
        if request.content_type != "application/json":  # what a web page can make a browser send has another
            return _refusal(415, f"the content type is {request.content_type}: application/json is needed")
        try:
            async with asyncio.timeout(self._queue):
                await self._slots.acquire()
        except TimeoutError:
            said = f"busy: {UNDER_WAY} requests are under way, and none ended within {self._queue:g} s"
            return _refusal(503, said, {"Retry-After": "1"})
        try:
            if request.transport is None:  # the client has gone while it waited
                return _refusal(503, "the client has gone")
            async with asyncio.timeout(BODY):
                body = await request.read()
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._answer, body)
        except TimeoutError:
            return _refusal(408, f"the request did not arrive within {BODY:g} s")
        except WireError as error:
            return _refusal(400, error.message)
        finally:
            self._slots.release()

    def _answer(self, body: bytes) -> web.Response:
        """What is said to a request. Raises `WireError`."""
        request, own = wire.read_request(body), self._pool.term.keywords
        if request.kwargs and request.kwargs != own:
            said = f"kwargs are {dict(request.kwargs)}, but this server was started with {own}: send these, or none"
            raise WireError("wrong_shape", said)
        with tempfile.TemporaryDirectory(prefix="reward-") as folder:
            paths = _write_clips(request.audio, Path(folder))
            samples = [replace(sample, audio=paths.get(sample.audio, sample.audio)) for sample in request.samples]
            batch = PackedBatch.of(InputBatch.of_inputs(samples))
            answers, _ = self._pool.score(batch, time.monotonic() + LONGEST)
        return web.Response(body=wire.write_results(answers), content_type="application/json")


def serve(
    term: Term,
    host: str,
    port: int,
    token: str,
    ready: Callable[[str], object],
    tls: ssl.SSLContext | None = None,
) -> None:
    """Serve a function until SIGTERM, or until Ctrl-C raises KeyboardInterrupt; then its processes are dead.

    `port`: 0 takes a free one. `tls`: of `certified`; none speaks plain HTTP. `ready` is called with the address that
    scores, once it does. Raises `RewardError` for an address that cannot be listened at, and for one beyond loopback
    without a token; `RecipeError` when the function cannot be loaded.
    """
    if not token and not _is_loopback(host):
        way_out = "set the variable of --token-env to a token, or leave --host out"
        raise RewardError(f"--host is {host}: others can reach that, and there is no token; {way_out}")
    with RewardPool(term) as pool:
        asyncio.run(_serve(pool, host, port, token, ready, tls))


def certified(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """TLS with a certificate chain and its key, PEM files; without `key` the first file holds both.

    Raises `RewardError` when they cannot be read or do not belong together.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:  # what ssl raises is one too
        said = error.strerror or str(error)
        raise RewardError(
            f"--tls-cert {certificate}" + (f" --tls-key {key}" if key else "") + f": {said}; give a certificate chain "
            "and its key as PEM files"
        ) from None
    return context


async def _serve(
    pool: RewardPool,
    host: str,
    port: int,
    token: str,
    ready: Callable[[str], object],
    tls: ssl.SSLContext | None,
) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    server = RewardServer(pool, token)
    runner = web.AppRunner(server.app(), access_log=None, shutdown_timeout=_GRACE)
    try:
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port, ssl_context=tls).start()
        except OSError as error:
            way_out = "another port, or 0 for a free one" if port else "another --host"
            raise RewardError(f"--host {host} --port {port}: {error.strerror}; give {way_out}") from None
        address, port, *_ = runner.addresses[0]
        ready(f"{'https' if tls else 'http'}://{f'[{address}]' if ':' in address else address}:{port}/score")
        await stopped.wait()
    finally:
        await runner.cleanup()
        server.close()


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _write_clips(audio: Mapping[str, bytes], folder: Path) -> dict[str, str]:
    """Write files; the path of each by the one that the client gave. Of that, only a plain suffix is kept."""
    paths: dict[str, str] = {}
    for number, (name, content) in enumerate(audio.items()):
        suffix = re.search(r"\.\w{1,8}$", name)
        path = folder / f"{number}{suffix[0] if suffix else ''}"
        path.write_bytes(content)
        paths[name] = str(path)
    return paths


def _refusal(status: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    body = wire.write_error(message)
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)
