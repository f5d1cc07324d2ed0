"""The reward that asks a server (docs/reward_server.md): what stands behind a term with a `url`."""

import asyncio
import base64
import random
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp

from rewards.plugin import LONGEST_PAUSE, Term
from rewards.remote import wire
from rewards.remote.wire import WireError
from rewards.types import RewardInput
from rlhf_platform.errors import RecipeError
from rlhf_platform.types import Failed

_FIRST_PAUSE = 0.25
"""Seconds before the first retry, at most; twice that before the next."""
_REFUSED = (401, 403)
_MISSING = 404
_BUSY = 429
_NAME = "name the address that scores, as in docs/reward_server.md"
"""The way out of an address that is another's."""


class _NoAnswer(Exception):
    """A request that came to nothing."""

    def __init__(self, kind: str, message: str, passing: bool = False, pause: float = 0.0, status: int = 0) -> None:
        """`passing`: worth another try, after `pause` seconds at least. `status`: of HTTP, when it came to that."""
        super().__init__(message)
        self.kind, self.message, self.passing, self.pause, self.status = kind, message, passing, pause, status


@dataclass(frozen=True)
class _Parcel:
    """A sample that is ready to go."""

    sample: bytes
    path: str
    """Of the clip that goes with it; "" for none."""
    clip: bytes
    """Its content as base64; the same object for all samples of one clip."""


class RemoteReward:
    """Asks the server at `url` for the reward of a batch of samples. The keywords are those of `Term.keywords`.

    `timeout`: seconds for one request; `retries`: times that it is made again after the network, the server or the
    time failed it. Sessions live in the event loop of the first call.
    """

    def __init__(
        self, url: str, timeout: float, retries: int, send_audio: bool, token: str, kwargs: Mapping[str, Any]
    ) -> None:
        """Raises ValueError for an address, a token or kwargs that no request can be made with."""
        if problem := _problem(url):
            raise ValueError(problem)
        try:
            wire.write_request(kwargs, [], {})
        except (TypeError, ValueError) as error:
            raise ValueError(f"kwargs cannot be sent as JSON ({error}); leave out what is no plain value") from None
        if not (token.isascii() and token.strip().isprintable()):
            raise ValueError("the token has characters that cannot stand in a header; set its variable anew")
        self._url, self._timeout, self._retries = url, timeout, retries
        self._send_audio, self._token, self._kwargs = send_audio, token.strip(), kwargs
        self._where = _shown(url)
        self._random = random.Random()  # its own: workers that failed together shall not come back together
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, samples: list[RewardInput]) -> list[Any]:
        """A number, a dict of numbers or a `Failed` for each sample. Raises nothing for what files or servers do."""
        ready, bodies = await asyncio.to_thread(self._written, samples)
        came = await asyncio.gather(*(self._asked(body, count) for count, body in bodies))
        answers = iter([answer for part in came for answer in part])
        return [parcel if isinstance(parcel, Failed) else next(answers) for parcel in ready]

    async def close(self) -> None:
        """Let the connections go. A call after that makes new ones."""
        if self._session:
            await self._session.close()
        self._session = None

    async def probe(self) -> None:
        """Raises `_NoAnswer` or `WireError` unless a reward server answers there that takes the token and kwargs."""
        wire.read_health(await self._answer("GET", urljoin(self._url, "health"), b""))
        wire.read_results(await self._answer("POST", self._url, self._body([])), 0)

    def _written(self, samples: Sequence[RewardInput]) -> tuple[list[_Parcel | Failed], list[tuple[int, bytes]]]:
        """Each sample as it is sent, or why it cannot be; the requests' bodies, with the samples in each."""
        paths = dict.fromkeys(sample.audio for sample in samples if self._send_audio and sample.audio)
        clips = {path: _clip(path) for path in paths}
        ready = [_parcel(sample, clips) for sample in samples]
        return ready, self._bodies([parcel for parcel in ready if isinstance(parcel, _Parcel)])

    def _bodies(self, parcels: Sequence[_Parcel]) -> list[tuple[int, bytes]]:
        """As few requests as their bound allows."""
        if not parcels:
            return []
        body, half = self._body(parcels), len(parcels) // 2
        if len(body) <= wire.LONGEST_REQUEST or not half:
            return [(len(parcels), body)]
        return self._bodies(parcels[:half]) + self._bodies(parcels[half:])

    def _body(self, parcels: Sequence[_Parcel]) -> bytes:
        audio = {parcel.path: parcel.clip for parcel in parcels if parcel.path}
        return wire.write_request(self._kwargs, [parcel.sample for parcel in parcels], audio)

    async def _asked(self, body: bytes, samples: int) -> list[Any]:
        """The answers to one request, made again where that may help."""
        if len(body) > wire.LONGEST_REQUEST:
            sizes = f"{len(body) / 2**20:.1f} MiB, more than the {wire.LONGEST_REQUEST / 2**20:g} MiB of a request"
            return [Failed("raised", f"the sample and its audio take {sizes}; cut the clip, or set send_audio: false")]
        for attempt in range(self._retries + 1):
            try:
                return wire.read_results(await self._answer("POST", self._url, body), samples)
            except (WireError, _NoAnswer) as error:
                problem = error
            if isinstance(problem, WireError) or not problem.passing or attempt == self._retries:
                break
            # Full jitter: Brooker, "Exponential backoff and jitter", AWS Architecture Blog, 2015.
            pause = problem.pause + self._random.uniform(0.0, _FIRST_PAUSE * 2**attempt)
            await asyncio.sleep(min(pause, LONGEST_PAUSE))
        return [Failed(problem.kind, f"{self._where}: {problem.message}")] * samples

    async def _answer(self, method: str, url: str, body: bytes) -> bytes:
        """The body of an answer with status 200. Raises `_NoAnswer`, and `WireError` for one that is too long."""
        session = self._session = self._session or self._new_session()
        try:
            data = BytesIO(body) if body else None  # written piece by piece: a large one holds nobody up
            async with session.request(method, url, data=data, allow_redirects=False) as response:
                content = await _content(response)
        except TimeoutError:
            raise _NoAnswer("timeout", f"no answer within {self._timeout:g} s", passing=True) from None
        except (aiohttp.ClientError, OSError, UnicodeError) as error:  # UnicodeError: a host that is no name
            # An answer that is not HTTP is quoted without the address, whose query may be secret.
            said = error.message if isinstance(error, aiohttp.ClientResponseError) else str(error)
            what = " ".join(said.split())[: wire.SHOWN] or type(error).__name__
            raise _NoAnswer("unavailable", self._without_token(what), passing=True) from None
        status = response.status
        if status == 200:
            return content
        said = self._without_token(wire.read_error(content))
        if 300 <= status < 400:
            said = f"a redirect to {_shown(response.headers.get('Location', ''))}; give the final address"
        passing, pause = status == _BUSY or status >= 500, response.headers.get("Retry-After", "")
        seconds = float(pause) if pause.isdecimal() and len(pause) < 10 else 0.0  # a date is not honoured
        raise _NoAnswer("unavailable", f"status {status}" + (f": {said}" if said else ""), passing, seconds, status)

    def _new_session(self) -> aiohttp.ClientSession:
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        return aiohttp.ClientSession(
            # Requests at a time are bounded by who calls. Each has a connection of its own: a server closes one that
            # is kept as it pleases, unseen between two steps. Certificates are the system's, or SSL_CERT_FILE's.
            connector=aiohttp.TCPConnector(limit=0, force_close=True, ssl=ssl.create_default_context()),
            timeout=aiohttp.ClientTimeout(total=self._timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            trust_env=False,  # what the recipe does not say, a proxy in the environment does not add
        )

    def _without_token(self, text: str) -> str:
        return text.replace(self._token, "***") if self._token else text


def probe(term: Term, seconds: float) -> None:
    """Find out before a run starts whether the server of a term with a `url` is there and takes what it will be sent.

    Waits `seconds` at most. Raises `RecipeError`, starting with the key, unless a server answers that speaks this
    version of the protocol and takes the token and kwargs.
    """
    key = f"{term.key}.url is {_shown(term.config.url)!r}"
    try:
        reward = RemoteReward(**term.keywords | {"timeout": seconds / 2})  # for each of its two requests
    except ValueError as error:
        raise RecipeError(f"{key}: {error}") from None
    try:
        asyncio.run(_probe(reward))
    except WireError as error:
        raise RecipeError(f"{key}: no reward server of this version answers there ({error.message}); {_NAME}") from None
    except _NoAnswer as error:
        raise RecipeError(f"{key}: {_explained(error, term)}") from None


async def _probe(reward: RemoteReward) -> None:
    try:
        await reward.probe()
    finally:
        await reward.close()


def _explained(error: _NoAnswer, term: Term) -> str:
    if error.status == _MISSING:
        return f"no reward server answers there ({error.message}); {_NAME}"
    if error.status in _REFUSED and not term.token:
        return f"it asks for a token ({error.message}); name the variable that holds it in {term.key}.token_env"
    if error.status in _REFUSED:
        return f"it refuses the token ({error.message}); set {term.config.token_env or 'its variable'} to the server's"
    if error.status:
        return f"it refuses a request without samples ({error.message}); mend that in the recipe or at the server"
    return f"nothing answers there ({error.message}); start the server, or mend the address"


def _problem(url: str) -> str:
    """Why no request can go to an address; "" when one can."""
    example = "write it as http://127.0.0.1:8000/score"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # a port that is no number raises
    except ValueError as error:
        return f"{error}; {example}"
    if parts.scheme not in ("http", "https") or not host:
        return example
    return "leave out the user and password; the token of token_env is sent instead" if "@" in parts.netloc else ""


def _shown(url: str) -> str:
    """An address without what may be secret in it: user, password and query."""
    bare = url.partition("?")[0].partition("#")[0]
    scheme, slashes, rest = bare.rpartition("//")
    host, slash, path = rest.partition("/")
    return scheme + slashes + host.rpartition("@")[2] + slash + path


def _parcel(sample: RewardInput, clips: Mapping[str, bytes | Failed]) -> _Parcel | Failed:
    """`clips`: what goes along with the samples, by path."""
    clip = clips.get(sample.audio, b"")
    if isinstance(clip, Failed):
        return clip
    try:
        return _Parcel(wire.write_sample(sample), sample.audio if sample.audio in clips else "", clip)
    except WireError as error:
        return Failed(error.kind, error.message)


def _clip(path: str) -> bytes | Failed:
    """A file's content as base64; no more of it than makes a request too long."""
    try:
        with open(path, "rb") as file:
            return base64.b64encode(file.read(wire.LONGEST_REQUEST))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        return Failed("raised", f"audio {path!r} cannot be read: {getattr(error, 'strerror', '') or error}")


async def _content(response: aiohttp.ClientResponse) -> bytes:
    """The body, no more of it than an answer may have."""
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > wire.LONGEST_ANSWER:
            raise WireError("wrong_shape", f"the answer is longer than {wire.LONGEST_ANSWER / 2**20:g} MiB")
    return bytes(content)
