"""Instructions in an LLM's words, behind an OpenAI-compatible server such as vLLM's."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import aiohttp

from rlhf_platform.data.instructions import keeps, off_normal
from rlhf_platform.data.manifest import Row
from rlhf_platform.errors import DataError

LONGEST = 160
"""Characters of an instruction; a longer answer is no instruction."""

_AT_ONCE = 16
_FIRST_PAUSE = 0.2  # seconds before the first retry; twice that before the next
_PASSING = (408, 429, 500, 502, 503, 504)
_TASK = (
    "Reword an instruction to a speaker in one short line, as a person would say it. Keep every attribute and add "
    "none. Answer with the new instruction alone.\n"
    "Text to speak: {text}\nAttributes: {asked}\nInstruction: {instruction}"
)


def from_llm(rows: Sequence[Row], url: str, model: str, timeout: float = 30.0, retries: int = 2) -> list[Row]:
    """The rows of `describe`, with `metadata.instruction` reworded by `model` of the server at `url` (such as
    `http://localhost:8000/v1`) and `metadata.reworded_by` naming it.

    An answer that does not keep what was measured, or is longer than `LONGEST`, changes nothing in its row; nor is a
    row asked for that has nothing to instruct. `timeout`: seconds for a request; `retries`: times that it is made
    again after the network, the time or a busy server failed it. Raises `DataError` when the server gives no answer,
    refuses the request or answers in another form.
    """
    return asyncio.run(_reworded(rows, url, model, timeout, retries))


async def _reworded(rows: Sequence[Row], url: str, model: str, timeout: float, retries: int) -> list[Row]:
    places = asyncio.Semaphore(_AT_ONCE)
    limit = aiohttp.ClientTimeout(total=timeout)
    async with aiohttp.ClientSession(timeout=limit) as session:

        async def reword(row: Row) -> Row:
            if not row.metadata["instruction"]:
                return row
            async with places:
                answer = await _ask(session, url, model, row, retries)
            if len(answer) > LONGEST or not keeps(answer, row.metadata["asked"]):
                return row
            return replace(row, metadata={**row.metadata, "instruction": answer, "reworded_by": model})

        return list(await asyncio.gather(*(reword(row) for row in rows)))


async def _ask(session: aiohttp.ClientSession, url: str, model: str, row: Row, retries: int) -> str:
    """The answer for one row, on one line without quotes."""
    asked = ", ".join(f"{name} {found}" for name, found in off_normal(row.metadata["asked"]).items())
    task = _TASK.format(text=row.text, asked=asked, instruction=row.metadata["instruction"])
    body = {"model": model, "messages": [{"role": "user", "content": task}], "max_tokens": 64, "temperature": 0.8}
    where = f"{url.rstrip('/')}/chat/completions"
    problem = ""
    for attempt in range(retries + 1):
        if attempt:
            await asyncio.sleep(_FIRST_PAUSE * 2 ** (attempt - 1))
        try:
            async with session.post(where, json=body) as response:
                if response.status == 200:
                    return _read(where, await response.json(content_type=None))
                problem = f"HTTP {response.status}: {(await response.text())[:200]}"
                if response.status not in _PASSING:
                    break
        except aiohttp.InvalidURL:
            raise DataError(f"{url!r} is no address; name one such as http://localhost:8000/v1") from None
        except ValueError as error:
            raise DataError(f"{where}: the answer is not JSON ({error}); name an OpenAI-compatible server") from None
        except TimeoutError:
            problem = f"no answer within {session.timeout.total:g} s"
        except aiohttp.ClientError as error:
            problem = str(error) or type(error).__name__
    raise DataError(f"{where}: {problem} (model {model!r}); start the server, or correct its address or the model")


def _read(where: str, answer: object) -> str:
    try:
        content = answer["choices"][0]["message"]["content"]  # type: ignore[index]
        return " ".join(content.split()).strip("\"'. ")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise DataError(f"{where}: the answer has no choices[0].message.content; is it OpenAI-compatible?") from None
