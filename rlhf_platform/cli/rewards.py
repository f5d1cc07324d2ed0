"""`rlhf rewards serve` and `rlhf rewards test`."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlhf_platform.cli.app import app, plain_errors, progress_bar
from rlhf_platform.errors import DataError, RewardError

if TYPE_CHECKING:
    from rewards.answers import Answer
    from rewards.plugin import Term
    from rewards.pool import RewardPool
    from rewards.types import RewardInput
    from rlhf_platform.data.manifest import Row

TOKEN_ENV = "REWARD_TOKEN"
_TOGETHER = 64
"""Samples scored between two looks at the progress bar."""
_PROBE = 10.0
"""Seconds for a server to say that it is there."""
_SHOWN = 10
"""Bad lines shown; the rest are counted."""

rewards_app = typer.Typer(help="Serve and try out reward functions.", no_args_is_help=True)
app.add_typer(rewards_app, name="rewards")

Function = Annotated[str, typer.Argument(metavar="FN", help="`file.py:name` or `package.module:name`.")]
Kwargs = Annotated[str, typer.Option("--kwargs", metavar="JSON", help="Keywords of the function, as a JSON object.")]
Timeout = Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=0.01, help="For one call.")]
Concurrency = Annotated[
    int | None,
    typer.Option("--concurrency", min=1, max=1024, help="Processes of a sync function (1), awaits of an async (32)."),
]
TokenEnv = Annotated[
    str | None,
    typer.Option("--token-env", metavar="NAME", help=f"Variable that holds the token; {TOKEN_ENV} if it is set."),
]


@rewards_app.command()
def serve(
    fn: Function,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 8000,
    host: Annotated[str, typer.Option("--host", help="What to listen at; beyond loopback with a token only.")] = (
        "127.0.0.1"
    ),
    token_env: TokenEnv = None,
    tls_cert: Annotated[
        Path | None, typer.Option("--tls-cert", metavar="FILE", help="Certificate chain, PEM: speak HTTPS.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option("--tls-key", metavar="FILE", help="Its key, where it is not in the same file.")
    ] = None,
    kwargs: Kwargs = "{}",
    timeout: Timeout = 30.0,
    concurrency: Concurrency = None,
) -> None:
    """Serve a reward function over HTTP, for the `url` of a recipe's reward, until Ctrl-C or SIGTERM.

    Example: rlhf rewards serve my_rewards.py:brevity --port 8000
    """
    with plain_errors():
        from rewards.remote import server

        if _is_url(fn):
            raise RewardError(f"FN is {fn!r}: that is a server already; name a function as `file.py:name`")
        if tls_key and not tls_cert:
            raise RewardError(f"--tls-key is {str(tls_key)!r}: there is no --tls-cert that it is the key of; give both")
        token, tls = _token(token_env), server.certified(tls_cert, tls_key) if tls_cert else None
        term = _term(fn, timeout=timeout, concurrency=concurrency, kwargs=_object(kwargs))
        server.serve(term, host, port, token, lambda url: typer.echo(f"{term.name}: {url}"), tls)


@rewards_app.command("test")
def try_out(
    fn: Annotated[str, typer.Argument(metavar="FN", help="As for `serve`, or the http address of a server.")],
    manifest: Annotated[Path, typer.Option("--manifest", metavar="FILE", help="The clips (docs/data.md).")],
    hypotheses: Annotated[
        Path, typer.Option("--hypotheses", metavar="FILE", help='JSON lines {"id": ..., "text": ...}.')
    ],
    token_env: TokenEnv = None,
    send_audio: Annotated[bool, typer.Option("--send-audio", help="Send the clips' bytes to a server.")] = False,
    kwargs: Kwargs = "{}",
    timeout: Timeout = 30.0,
    concurrency: Concurrency = None,
    show: Annotated[int, typer.Option("--show", min=0, help="How many of the highest and of the lowest.")] = 10,
) -> None:
    """Score texts with a reward function or server: how the answers are spread, what fails, what that takes.

    Example: rlhf rewards test my_rewards.py:brevity --manifest my.jsonl --hypotheses hypotheses.jsonl
    """
    with plain_errors():
        from rewards.pool import RewardPool
        from rlhf_platform.cli.reward_tables import render
        from rlhf_platform.data.manifest import read_manifest
        from rlhf_platform.types import Failed

        keys = {"timeout": timeout, "concurrency": concurrency, "kwargs": _object(kwargs), "send_audio": send_audio}
        samples = read_hypotheses(hypotheses, read_manifest(manifest))
        term = _term(fn, _token(token_env) if _is_url(fn) else "", **keys)
        if term.config.url:
            from rewards.remote.client import probe

            probe(term, _PROBE)
        with RewardPool(term) as pool:
            started = time.monotonic()
            answers, seconds = _scored(pool, samples)
            render(term.name, samples, answers, seconds, time.monotonic() - started, show)
        if all(isinstance(answer, Failed) for answer in answers):
            raise typer.Exit(1)


def read_hypotheses(path: Path, rows: "Sequence[Row]") -> "list[RewardInput]":
    """What a reward function gets for each text in a file of JSON lines. Other members than the two are ignored.

    Raises one `DataError` that counts the bad lines and names the first ten, or says that there are none at all.
    """
    from rewards.types import RewardInput

    if not path.is_file():
        raise DataError(f"--hypotheses is {str(path)!r}: there is no such file; name one of JSON lines")
    by_id = {row.id: row for row in rows}
    samples: list[RewardInput] = []
    problems: list[str] = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        found = _hypothesis(line, by_id) if line.strip() else ""
        if isinstance(found, RewardInput):
            samples.append(found)
        elif found:
            problems.append(f"{path.name} line {number}: {found}")
    if problems:
        more = [f"... and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        lines = f"{len(problems)} line{'s' if len(problems) > 1 else ''} cannot be used"
        raise DataError("\n".join([f"{path}: {lines}", *problems[:_SHOWN], *more]))
    if not samples:
        raise DataError(f'{path}: empty: write a line {{"id": ..., "text": ...}} for each text')
    return samples


def _hypothesis(line: bytes, by_id: "Mapping[str, Row]") -> "RewardInput | str":
    """The sample of a line, or what is wrong with it."""
    from rewards.remote.wire import WireError, strict_json
    from rewards.types import RewardInput
    from rlhf_platform.data.manifest import to_prompt

    try:
        values = strict_json(line)
    except WireError as error:
        return error.message
    if not isinstance(values, dict):
        return 'a line is an object: {"id": ..., "text": ...}'
    for key in ("id", "text"):
        if not isinstance(values.get(key), str):
            return f"{key} is {values[key]!r}, not text" if key in values else f"no {key!r}"
    if values["id"] not in by_id:
        return f"id {values['id']!r} is not in the manifest"
    return RewardInput.of(to_prompt(by_id[values["id"]]), values["text"])


def _scored(pool: "RewardPool", samples: "Sequence[RewardInput]") -> "tuple[list[Answer], list[float]]":
    """One answer per sample, and the seconds each took."""
    from rewards.processes.batch import InputBatch, PackedBatch

    answers: list[Answer] = []
    seconds: list[float] = []
    with progress_bar("samples scored") as progress:
        for start in range(0, len(samples), _TOGETHER):
            batch = InputBatch.of_inputs(samples[start : start + _TOGETHER])
            came, took = pool.score(PackedBatch.of(batch))
            answers += came
            seconds += took
            progress(len(answers), len(samples))
    return answers, seconds


def _term(fn: str, token: str = "", **keys: Any) -> "Term":
    """The term of a function or address; a file is relative to the working directory. `keys`: of a recipe's term."""
    from rewards.plugin import Term
    from rlhf_platform.recipe.rewards import reward_name
    from rlhf_platform.recipe.schema import RewardConfig

    config = RewardConfig(url=fn, **keys) if _is_url(fn) else RewardConfig(fn=fn, **keys)
    return Term(config, reward_name(config), base_dir=Path.cwd(), token=token)


def _is_url(fn: str) -> bool:
    return fn.startswith(("http://", "https://"))


def _token(variable: str | None) -> str:
    """Its value; "" when no variable is named and the usual one is not set. Raises `RewardError`."""
    token = os.environ.get(variable or TOKEN_ENV, "").strip()
    if variable and not token:
        raise RewardError(f"--token-env is {variable}: that environment variable is not set; set it to the token")
    return token


def _object(text: str) -> dict[str, Any]:
    """The value of --kwargs. Raises `RewardError`."""
    from rewards.remote.wire import WireError, strict_json

    try:
        value = strict_json(text)
        problem = "" if isinstance(value, dict) else "not an object"
    except WireError as error:
        problem = error.message
    if problem:
        raise RewardError(f"--kwargs is {text!r}: {problem}; write a JSON object, as '{{\"strict\": true}}'")
    return dict(value)
