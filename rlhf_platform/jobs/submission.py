"""Hand a recipe to a Ray cluster, and follow it to its end."""

import asyncio
import shlex
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from rlhf_platform.errors import ClusterError, WaitTimeout
from rlhf_platform.jobs.client import PREFIX, Client
from rlhf_platform.jobs.packaging import RECIPE, stage
from rlhf_platform.recipe.files import RecipeFiles

FINISHED, MISTAKE, FAILED = 0, 2, 1
STOP_SECONDS = 60
"""A run notes how far it came and closes its tracking before Ray kills it; its own default is 3."""
QUIET_SECONDS = 15.0
"""The log says nothing for so long: ask whether the job still runs."""
START_SECONDS = 300.0
"""For Ray to unpack the files and start the job."""
END_SECONDS = 30.0
"""From the end of the log to Ray's word on how the job ended."""


def entrypoint(recipe: str) -> str:
    """The command of a job, given the recipe's path there."""
    return shlex.join(["python", "-m", "rlhf_platform.cli.main", "run", recipe, "cluster.address=auto"])


def submit(client: Client, files: RecipeFiles) -> str:
    """Upload and start; returns the submission id. Values of variables stay here. Raises ClusterError, WaitTimeout."""
    submission_id = f"{PREFIX}{files.name}-{uuid.uuid4().hex[:6]}"
    with tempfile.TemporaryDirectory(prefix="rlhf-submit-") as folder, client.named(submission_id):
        stage(files, Path(folder))
        client.submit_job(
            entrypoint=entrypoint(RECIPE),
            submission_id=submission_id,
            runtime_env={"working_dir": folder, "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}},
            metadata={"recipe": files.name, "recipe_hash": files.digest},
        )
    return submission_id


def follow(client: Client, submission_id: str, write: Callable[[str], object]) -> int:
    """Write the job's log until its end; returns `FINISHED`, `MISTAKE` (the run's own code 2) or `FAILED`.

    Raises ClusterError when the connection breaks (the job goes on) and WaitTimeout when Ray does not start the job.
    """
    _until(client, submission_id, "start", START_SECONDS, lambda job: str(job.status) != "PENDING")
    try:
        asyncio.run(_tail(client, submission_id, write))
    except (aiohttp.ClientError, RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise ClusterError(
            f"{submission_id}: the connection to its log broke ({reason[0]}); the job goes on, follow it again with "
            f"`rlhf logs {submission_id} --follow`"
        ) from None
    job = _until(client, submission_id, "end", END_SECONDS, has_ended)
    if str(job.status) == "SUCCEEDED":
        return FINISHED
    return MISTAKE if job.driver_exit_code == MISTAKE else FAILED


def stop(client: Client, submission_id: str) -> Any:
    """Ask the job to end and wait for it; what Ray then knows of it. Raises ClusterError, WaitTimeout."""
    with client.named(submission_id):
        client.stop_job(submission_id)
    return _until(client, submission_id, "end", STOP_SECONDS + END_SECONDS, has_ended)


def has_ended(job: Any) -> bool:
    return str(job.status) in ("SUCCEEDED", "FAILED", "STOPPED")


def next_commands(submission_id: str, address: str, verbs: Sequence[str] = ("status", "logs", "stop")) -> list[str]:
    """What a person may type next."""
    options = {"logs": " --follow"}
    return [f"rlhf {verb} {submission_id}{options.get(verb, '')} --address {address}" for verb in verbs]


def _until(client: Client, submission_id: str, what: str, seconds: float, is_so: Callable[[Any], bool]) -> Any:
    expires = time.monotonic() + seconds
    while not is_so(job := client.job(submission_id)):
        if time.monotonic() > expires:
            raise WaitTimeout("rlhf", f"job {submission_id} to {what}", seconds, f"its state is {job.status}")
        time.sleep(0.5)
    return job


async def _tail(client: Client, submission_id: str, write: Callable[[str], object]) -> None:
    """The log as it grows. A job may be quiet for long; each quiet spell is a bounded wait, then Ray is asked."""
    chunks = client.tail_job_logs(submission_id)
    pending: asyncio.Future[str] | None = None
    ended = False
    while True:
        pending = pending or asyncio.ensure_future(anext(chunks))
        done, _ = await asyncio.wait({pending}, timeout=QUIET_SECONDS)
        if not done:
            if ended:  # nothing came in a whole spell after the end
                pending.cancel()
                return
            ended = has_ended(client.job(submission_id))
            continue
        try:
            write(pending.result())
        except StopAsyncIteration:
            return
        pending = None
