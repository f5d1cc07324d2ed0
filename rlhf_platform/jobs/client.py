"""Ray's job client with every request bounded and every failure in one line (law 3)."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests
from ray.dashboard.modules.job.pydantic_models import JobDetails
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from rlhf_platform.errors import ClusterError, WaitTimeout

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
CONNECT_SECONDS = 10.0
"""For a first answer."""
REQUEST_SECONDS = 120.0
"""For any other, an upload among them."""
PREFIX = "rlhf-"
"""Of the submission ids of our jobs."""


class Client(JobSubmissionClient):
    """Ray's client for one dashboard. Its requests raise ClusterError and WaitTimeout."""

    def __init__(self, address: str) -> None:
        self.shown_address = address
        self._seconds = CONNECT_SECONDS
        super().__init__(address)
        self._seconds = REQUEST_SECONDS

    def _do_request(self, method: str, endpoint: str, **arguments: Any) -> requests.Response:
        key = f"--address is {self.shown_address}"
        try:
            answer: requests.Response = super()._do_request(method, endpoint, timeout=self._seconds, **arguments)
        except AuthenticationError:
            raise ClusterError(_refused(key)) from None
        except requests.Timeout:
            way_out = "name the dashboard of a Ray head, http://HOST:8265"
            raise WaitTimeout(
                "rlhf", f"an answer of {self.shown_address} (--address)", self._seconds, way_out
            ) from None
        except requests.RequestException as error:
            raise ClusterError(
                f"{key}: nothing answers there ({_reason(error)}); name the dashboard of a running Ray head, "
                "http://HOST:8265"
            ) from None
        return answer

    def job(self, submission_id: str) -> JobDetails:
        """What Ray knows of a job. Raises ClusterError when it does not know it."""
        with self.named(submission_id):
            return self.get_job_info(submission_id)

    @contextmanager
    def named(self, submission_id: str) -> Iterator[None]:
        """What Ray refuses is said in one line; most often it does not know the job."""
        try:
            yield
        except RuntimeError as error:
            if "404" in str(error):
                where = f"no such job at {self.shown_address}; `rlhf status` lists the jobs there"
                raise ClusterError(f"{submission_id}: {where}") from None
            raise ClusterError(f"{submission_id}: Ray refused: {_last_line(error)}") from None


def connect(address: str | None) -> Client:
    """A client of the dashboard at `address`; none: RAY_API_SERVER_ADDRESS, else `DEFAULT_ADDRESS`.

    Raises ClusterError when nothing answers, a token is refused or what answers is no Ray dashboard, WaitTimeout when
    it answers nothing for `CONNECT_SECONDS`.
    """
    address = (address or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT_ADDRESS).rstrip("/")
    key = f"--address is {address}"
    if not re.fullmatch(r"https?://[^\s/]+(/\S*)?", address):
        raise ClusterError(f"{key}: allowed http://HOST:8265, the dashboard of a Ray head")
    for name in ("ray.dashboard", "ray._private.runtime_env"):
        for logger in (name, *(known for known in logging.root.manager.loggerDict if known.startswith(f"{name}."))):
            logging.getLogger(logger).setLevel(logging.WARNING)  # each upload is a notice of several lines
    with _addresses_left_out():
        try:
            return Client(address)
        except AuthenticationError:
            raise ClusterError(_refused(key)) from None
        except (RuntimeError, ValueError, KeyError, TypeError, requests.RequestException):
            raise ClusterError(
                f"{key}: what answers there is no Ray dashboard; name that of a Ray head, http://HOST:8265"
            ) from None


@contextmanager
def _addresses_left_out() -> Iterator[None]:
    """Ray's client takes these variables before the address that it is given."""
    kept = {name: os.environ.pop(name, None) for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")}
    try:
        yield
    finally:
        os.environ |= {name: value for name, value in kept.items() if value is not None}


def _refused(key: str) -> str:
    return (
        f"{key}: it asks for a token, and there is none or another; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to "
        "a file with the cluster's"
    )


def _reason(error: Exception) -> str:
    """The operating system's words at the bottom of an error of requests."""
    found = re.findall(r"\[Errno -?\d+\] ([^'\")]+)", str(error))
    return found[-1] if found else type(error).__name__


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1]
