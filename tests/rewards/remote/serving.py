"""Servers on free loopback ports, in threads of the tests' own process."""

import asyncio
import json
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from rewards.pool import RewardPool
from rewards.remote.server import RewardServer

Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]
"""What is written to a client before its connection is closed, or what writes it."""


@contextmanager
def a_loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(_cancel_others(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@contextmanager
def reward_server(fn: str, folder: Path, token: str = "", queue: float = 30.0, **keys: object) -> Iterator[str]:
    """The reference server; gives the address that scores. `keys`: of a term in a recipe."""
    with RewardPool.of(fn, folder, **keys) as pool, a_loop() as loop:

        async def start() -> tuple[RewardServer, web.AppRunner]:
            server = RewardServer(pool, token, queue)
            runner = web.AppRunner(server.app(), access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            return server, runner

        server, runner = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/score"
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        server.close()


class Scripted:
    """A server that answers its requests, one to a connection, with `answers` in turn; the last answers all others."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self.url = ""
        self.requests: list[tuple[str, bytes]] = []
        """Head and body of each."""
        self._answers = answers

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            lengths = [line.split(":")[1] for line in head.splitlines() if line.lower().startswith("content-length:")]
            body = await reader.readexactly(int(lengths[0]) if lengths else 0)
            self.requests.append((head, body))
            answer = self._answers[min(len(self.requests), len(self._answers)) - 1]
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(writer)
        except (OSError, asyncio.IncompleteReadError):  # the client has hung up
            pass
        finally:
            writer.close()


@contextmanager
def scripted(*answers: Answer, tls: ssl.SSLContext | None = None) -> Iterator[Scripted]:
    script = Scripted(answers)
    with a_loop() as loop:

        async def start() -> asyncio.Server:
            return await asyncio.start_server(script.talk, "127.0.0.1", 0, ssl=tls, limit=2**24)

        server = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
        scheme = "https" if tls else "http"
        script.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/score"
        yield script
        loop.call_soon_threadsafe(server.close)


def http(status: int, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def results(*values: object) -> bytes:
    return http(200, json.dumps({"version": 1, "results": values}).encode())


def certificate(folder: Path) -> Path:
    """A certificate for 127.0.0.1 that signs itself, and its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "server.pem"
    plain = serialization.NoEncryption()
    own = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    file.write_bytes(own + signed.public_bytes(serialization.Encoding.PEM))
    return file
