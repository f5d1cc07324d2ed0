"""What `rlhf status` says of jobs, in lines."""

import time
from collections.abc import Sequence
from typing import Any

from rlhf_platform.jobs.client import PREFIX


def job_lines(job: Any) -> list[str]:
    """One job: state, times, recipe, exit code and what Ray has to say after a failure."""
    lines = [", ".join(filter(None, (f"{job.submission_id}: {_state(job)}", _times(job))))]
    metadata = job.metadata or {}
    if "recipe" in metadata:
        lines.append(f"  recipe {metadata['recipe']}, {metadata.get('recipe_hash', '')}")
    if job.driver_exit_code:
        lines.append(f"  exit code {job.driver_exit_code}")
    if str(job.status) in ("PENDING", "FAILED") and job.message:
        lines.append(f"  {_message(job.message)}")
    return lines


def list_lines(jobs: Sequence[Any], address: str) -> list[str]:
    """The platform's jobs of a cluster, newest first, a line each."""
    ours = [job for job in jobs if (job.submission_id or "").startswith(PREFIX)]
    if not ours:
        return [f"no jobs of the platform at {address}"]
    ours.sort(key=lambda job: job.start_time or 0, reverse=True)
    width = max(len(job.submission_id) for job in ours)
    return [f"{job.submission_id:<{width}}  {_state(job):<9}  {_times(job)}" for job in ours]


def age(seconds: float) -> str:
    """Seconds as a person says them: 45 s, 12 min, 3.4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _state(job: Any) -> str:
    return str(job.status).rpartition(".")[2].lower()


def _times(job: Any) -> str:
    """Ray counts in milliseconds since 1970."""
    if not job.start_time:
        return ""
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(job.start_time / 1000))
    until = job.end_time / 1000 if job.end_time else time.time()
    return f"started {started}, {'took' if job.end_time else 'for'} {age(until - job.start_time / 1000)}"


def _message(text: str) -> str:
    """The last line of the log that Ray quotes, which of our runs is the mistake."""
    return text.strip().splitlines()[-1].strip()
