"""`rlhf submit`, `status`, `logs` and `stop` against a real Ray head, and against what is none."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlhf_platform.cli.main import app
from rlhf_platform.jobs import client
from tests.ray_cluster import Running, ray_cluster

QUICKSTART = str(Path(__file__).parents[2] / "recipes/asr/quickstart.yaml")
RLHF = [sys.executable, "-m", "rlhf_platform.cli.main"]


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert len(result.stderr.splitlines()) == 1
    return result.stderr.rstrip("\n")


@pytest.mark.parametrize("command", [["submit", QUICKSTART], ["status"], ["logs", "rlhf-x"], ["stop", "rlhf-x"]])
def test_an_address_where_nothing_listens_is_refused_at_once(command: list[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        said = refused(*command, "--address", address)
    assert said.startswith(f"--address is {address}: nothing answers there (Connection refused); name the dashboard")


def test_an_address_where_something_else_answers_is_no_ray_dashboard() -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert f"--address is {address}: what answers there is no Ray dashboard" in refused(
            "status", "--address", address
        )
        server.shutdown()


def test_an_address_that_never_answers_is_given_up_after_a_bounded_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "CONNECT_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert refused("status", "--address", address).startswith(f"rlhf waited 1 s for an answer of {address}")


def test_other_spellings_of_an_address_are_refused_and_ray_s_own_variables_do_not_win(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert refused("status", "--address", "ray://h:1").startswith("--address is ray://h:1: allowed http://HOST:8265")
    monkeypatch.setenv("RAY_ADDRESS", "10.255.255.1:6379")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
    assert refused("status").startswith("--address is http://127.0.0.1:1: nothing answers")
    assert refused("status", "--address", "http://127.0.0.1:2").startswith("--address is http://127.0.0.1:2: nothing")
    assert os.environ["RAY_ADDRESS"] == "10.255.255.1:6379"


def test_a_bad_recipe_is_refused_before_anything_is_sent() -> None:
    assert "algorithm.group_size is 1" in refused("submit", QUICKSTART, "algorithm.group_size=1")
    said = refused("submit", QUICKSTART, "cluster.address=10.0.0.1:6379")
    assert said.startswith("cluster.address is 10.0.0.1:6379: a job runs in the cluster that takes it")


@pytest.fixture(scope="module")
def ray() -> Iterator[Running]:
    # What the recipe reads from the environment has its value where Ray runs, not where it is submitted.
    with ray_cluster([1], {"PROJECT": "from-the-cluster"}) as running:
        yield running


def rlhf(ray: Running, folder: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = ray.environment(**variables)
    command = [*RLHF, *arguments, "--address", ray.address]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200, check=False
    )


def submitted(said: str) -> str:
    found = re.search(r"submitted (rlhf-\S+)", said)
    assert found, said
    return found[1]


@pytest.mark.slow
def test_a_token_that_is_missing_or_wrong_is_said(ray: Running, tmp_path: Path) -> None:
    none = {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": ""}
    for variables in ({"RAY_AUTH_TOKEN": "0" * 32}, none):
        ended = rlhf(ray, tmp_path, "status", **variables)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert "it asks for a token, and there is none or another; set RAY_AUTH_MODE=token" in ended.stderr
        assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_a_job_s_own_mistake_is_followed_to_its_end_and_its_exit_code_is_ours(ray: Running, tmp_path: Path) -> None:
    # The storage of another machine: nothing of it is here, so that only the job can say that the file is absent.
    missing = ("data.demo=null", "data.manifest=/no-such-storage/clips.jsonl")
    project = 'tracking.project="${oc.env:PROJECT}"'
    ended = rlhf(ray, tmp_path, "submit", QUICKSTART, *missing, project, PROJECT="typed-here")
    assert ended.returncode == 2, ended.stdout + ended.stderr
    job = submitted(ended.stdout)
    assert "data.manifest is '/no-such-storage/clips.jsonl': no such file" in ended.stdout
    assert f"runs_dir {tmp_path}/runs, cache_dir {tmp_path}/.cache, data.manifest /no-such-storage" in ended.stderr
    assert "read on the cluster: PROJECT; set it where `ray start` runs" in ended.stderr
    assert f"{job}: failed" in ended.stderr
    assert "typed-here" not in ended.stdout + ended.stderr

    status = rlhf(ray, tmp_path, "status", job).stdout.splitlines()
    assert status[0].startswith(f"{job}: failed, started ")
    assert status[1].startswith("  recipe asr-quickstart, ")
    assert status[2] == "  exit code 2"
    assert "no such file" in status[3]
    assert rlhf(ray, tmp_path, "status").stdout.startswith(f"{job}  failed ")
    assert "no such file" in rlhf(ray, tmp_path, "logs", job).stdout


@pytest.mark.slow
def test_a_job_that_ray_does_not_know_is_one_line(ray: Running, tmp_path: Path) -> None:
    for command in (["status"], ["logs"], ["logs", "--follow"], ["stop"]):
        ended = rlhf(ray, tmp_path, *command, "rlhf-nobody")
        assert ended.returncode == 2
        assert ended.stderr == f"rlhf-nobody: no such job at {ray.address}; `rlhf status` lists the jobs there\n"


@pytest.mark.slow
def test_ctrl_c_leaves_the_job_running_and_stop_ends_it(ray: Running, tmp_path: Path) -> None:
    command = [*RLHF, "submit", QUICKSTART, "tracking.wandb=off", "--address", ray.address]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=ray.environment(PROJECT="x"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    job = ""
    for line in process.stdout:
        job = submitted(line) if "submitted" in line else job
        if line.startswith("[") and "run /" in line:  # the run's own first line
            break
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"{job} goes on; follow it again, or stop it:" in said
    assert f"rlhf logs {job} --follow --address {ray.address}" in said
    assert rlhf(ray, tmp_path, "status", job).stdout.startswith(f"{job}: running, ")

    stopped = rlhf(ray, tmp_path, "stop", job)
    assert (stopped.returncode, stopped.stdout.split(",")[0]) == (0, f"{job}: stopped"), stopped.stderr
    noted = (tmp_path / "runs/asr-quickstart/status.json").read_text()
    assert '"state": "interrupted"' in noted, noted + rlhf(ray, tmp_path, "logs", job).stdout


@pytest.mark.slow
def test_a_detached_job_is_left_to_ray(ray: Running, tmp_path: Path) -> None:
    missing = ("data.demo=null", "data.manifest=/no-such-storage/clips.jsonl")
    ended = rlhf(ray, tmp_path, "submit", QUICKSTART, *missing, "--detach")
    job = submitted(ended.stdout)
    assert ended.returncode == 0
    assert [line.strip() for line in ended.stdout.splitlines()[1:]] == [
        f"rlhf status {job} --address {ray.address}",
        f"rlhf logs {job} --follow --address {ray.address}",
        f"rlhf stop {job} --address {ray.address}",
    ]
    assert rlhf(ray, tmp_path, "logs", job, "--follow").returncode == 2


@pytest.mark.slow
def test_the_cluster_of_these_tests_listens_on_loopback_only(ray: Running) -> None:
    """Law 10, read from the kernel's table for every process below the cluster's."""
    import psutil

    time.sleep(1)
    listening = [
        (process.cmdline()[:3], connection.laddr.ip)
        for process in psutil.Process(ray.pid).children(recursive=True)
        for connection in process.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    assert [found for found in listening if found[1] not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")] == []


@pytest.mark.parametrize("command", ["submit", "status", "logs", "stop"])
def test_help_names_an_example(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert f"Example: rlhf {command} " in " ".join(result.stdout.split())
