"""infra/docker, infra/slurm and infra/ray, as far as they can be checked without Docker, SLURM or other machines."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "infra/docker/Dockerfile"
SBATCH = ROOT / "infra/slurm/rlhf.sbatch"
LAUNCHER = ROOT / "infra/ray/cluster.yaml"

INSTRUCTIONS = {"ARG", "CMD", "COPY", "ENV", "FROM", "RUN", "WORKDIR"}


def instructions(text: str) -> list[tuple[str, str]]:
    """Each instruction of a Dockerfile and its arguments, lines joined."""
    code = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    lines = [line.strip() for line in re.sub(r"\\\n", " ", code).splitlines() if line.strip()]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def test_the_image_copies_what_is_there_and_calls_what_exists() -> None:
    found = instructions(DOCKERFILE.read_text())
    assert {name for name, _ in found} <= INSTRUCTIONS
    assert [name for name, _ in found][:2] == ["ARG", "FROM"]
    copied = {source for name, rest in found if name == "COPY" for source in rest.split()[:-1]}
    assert [source for source in sorted(copied) if not (ROOT / source).exists()] == []
    packages = {"rlhf_platform", "policies", "rollout", "rewards", "recipes", "infra"}
    assert packages | {"pyproject.toml", "Makefile", "README.md", "LICENSE"} == copied
    for name, rest in found:
        if name == "RUN":
            assert subprocess.run(["bash", "-n", "-c", rest], check=False).returncode == 0, rest
    targets = [target for name, rest in found if name == "RUN" for target in re.findall(r"\bmake (\w+)$", rest)]
    assert targets == ["setup"]
    ended = subprocess.run(["make", "-n", *targets], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_the_image_needs_no_file_that_is_not_copied() -> None:
    """Set-up reads the lock file, and the package its readme and licence: all come along."""
    project = (ROOT / "pyproject.toml").read_text()
    assert 'readme = "README.md"' in project
    assert 'license-files = ["LICENSE"]' in project
    ignored = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().split()
    assert {".venv", ".git", ".cache", "runs"} <= set(ignored)


def test_the_launcher_s_file_is_one_to_ray() -> None:
    from ray.autoscaler._private.util import fillout_defaults, prepare_config, validate_config

    config = yaml.safe_load(LAUNCHER.read_text())
    validate_config(fillout_defaults(prepare_config(config)))
    assert config["max_workers"] == len(config["provider"]["worker_ips"])
    starts = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    assert all("RAY_AUTH_MODE=token" in command for command in starts if "ray start" in command)


def test_a_mistake_in_the_launcher_s_file_is_found() -> None:
    from ray.autoscaler._private.util import validate_config

    with pytest.raises(Exception, match="max_worker"):
        validate_config(yaml.safe_load(LAUNCHER.read_text().replace("max_workers:", "max_workerss:")))


STUBS = {
    "scontrol": "echo one; echo two; echo three",
    "getent": 'echo "10.0.0.7 STREAM"',
    # Options, then the command, which it runs here.
    "srun": 'while [[ $1 == --* ]]; do [[ $1 == --nodelist=* ]] && node=${1#*=}; shift; done\nNODE=$node exec "$@"',
    ".venv/bin/ray": 'echo "$NODE ray $*" >>"$CALLS"; [[ -s "$RAY_AUTH_TOKEN_PATH" ]] || exit 9\n'
    "[[ $1 == status ]] && exit 0\nexec sleep 60",
    ".venv/bin/rlhf": 'printf "%s rlhf" "$NODE" >>"$CALLS"; printf " <%s>" "$@" >>"$CALLS"; exit "${CODE:-0}"',
}
"""Programs of a node and of SLURM that say how they were called."""


def sbatch(folder: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    for name, text in STUBS.items():
        path = folder / name if "/" in name else folder / "bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{text}\n")
        path.chmod(0o755)
    environment = {
        "PATH": f"{folder}/bin:{os.environ['PATH']}",
        "SLURM_JOB_NODELIST": "n[1-3]",
        "SLURM_CPUS_ON_NODE": "8",
        "CALLS": str(folder / "calls"),
    }
    command = ["bash", str(SBATCH), *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment | variables, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_batch_script_starts_ray_on_every_node_and_the_run_on_the_first(tmp_path: Path) -> None:
    ended = sbatch(tmp_path, "my.yaml", "rewards=[{fn: a b}]", SLURM_GPUS_ON_NODE="4")
    assert ended.returncode == 0, ended.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    head = "--node-ip-address=10.0.0.7 --port=6379 --dashboard-host=127.0.0.1 --num-cpus=8 --num-gpus=4"
    worker = "ray start --block --address=10.0.0.7:6379 --node-ip-address=10.0.0.7 --num-cpus=8 --num-gpus=4"
    assert {f"one ray start --head --block {head}", f"two {worker}", f"three {worker}"} <= set(calls)
    assert calls[-1] == "one rlhf <run> <my.yaml> <rewards=[{fn: a b}]> <cluster.address=10.0.0.7:6379>"
    assert list(tmp_path.glob(".rlhf-ray-*")) == [], "the token was left behind"


def test_the_batch_script_ends_as_the_run_does_and_says_how_it_is_used(tmp_path: Path) -> None:
    assert sbatch(tmp_path, "my.yaml", CODE="2").returncode == 2
    without = sbatch(tmp_path)
    assert (without.returncode, without.stderr.startswith("usage: sbatch ")) == (2, True)


def test_the_batch_script_is_sound_bash() -> None:
    assert subprocess.run(["bash", "-n", SBATCH], check=False).returncode == 0
