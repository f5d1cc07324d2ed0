"""A judge's model on this machine: the real vLLM server as a child process on 127.0.0.1. A plain class."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from rewards.judge.model import SMOLLM2, check_chat_template, fingerprint, model_folder, with_lora
from rlhf_platform.errors import ClusterError, RecipeError, WaitTimeout

HOST = "127.0.0.1"
ADAPTER = "judge"
"""Begins the name that a LoRA is served under."""
_LOOK = 0.2
_SHOWN = 15
"""Last lines of the log in an error."""


class JudgeServer:
    """vLLM serving one judge to OpenAI clients. A context manager; `close` kills it, and it dies with this process.

    `model`: `smollm2`, a folder in Hugging Face layout or a name on the hub. `folder`: for its log and the weights that
    it makes, once each: those of `smollm2`, and where there is no GPU those with the LoRA of folder `adapter` in them.
    `threads`: cores to compute on without a GPU; `gpus`: how many to split the model over. `max_tokens`: prompt and
    answer together. `kv_cache_gib`: memory of the KV cache. `start_timeout`: seconds to load.
    """

    def __init__(
        self,
        model: str,
        folder: str | Path,
        threads: int = 1,
        adapter: str = "",
        max_tokens: int = 2048,
        max_sequences: int = 32,
        kv_cache_gib: float = 0.5,
        dtype: str = "bfloat16",
        start_timeout: float = 300.0,
        gpus: int = 0,
        key: str = "judges[0]",
    ) -> None:
        """`key`: where the judge stands in the recipe. Raises nothing; all is looked at in `start`."""
        self._model, self._folder, self._adapter = model, Path(folder), adapter
        self._threads, self._max_tokens, self._max_sequences = threads, max_tokens, max_sequences
        self._kv_cache_gib, self._dtype, self._start_timeout = kv_cache_gib, dtype, start_timeout
        self._gpus, self._key, self._port = gpus, key, 0
        self._process: subprocess.Popen[bytes] | None = None
        self.log = self._folder / "judge.log"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _base(self) -> str:
        folder = Path(self._model).expanduser()
        local = self._model != SMOLLM2 and folder.is_dir()
        return f"{folder.name}-{fingerprint(folder)}" if local else self._model

    @property
    def url(self) -> str:
        """What an OpenAI client is given."""
        return f"http://{HOST}:{self._port}/v1"

    @property
    def model(self) -> str:
        """Name of the served model; of a folder's, with what tells its contents apart."""
        if self._adapter:
            return f"{ADAPTER}-{fingerprint(Path(self._adapter))}"
        return self._base

    def start(self) -> str:
        """Start it and wait until it answers; its `url`.

        Raises `RecipeError` for a model without a chat template or an adapter that is not there, `ClusterError` when
        the server ends, `WaitTimeout` when it does not answer in time.
        """
        path = model_folder(self._model, self._folder, f"{self._key}.model")
        check_chat_template(path, self._model, f"{self._key}.model")
        rank = _rank(Path(self._adapter), f"{self._key}.lora") if self._adapter else 0
        if rank and not self._gpus:
            path = with_lora(path, Path(self._adapter), self._dtype, self._folder, f"{self._key}.lora")
            rank = 0
        self._folder.mkdir(parents=True, exist_ok=True)
        self._port = _free_port()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "rewards.judge.served", *self._arguments(path, rank)],
                stdin=subprocess.PIPE,  # its end is how the child learns that we are gone
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(self._threads),
                start_new_session=True,  # its engine is a process of its own, and goes with it
            )
        try:
            self._wait()
        except BaseException:
            self.close()
            raise
        return self.url

    def healthy(self) -> bool:
        """Whether the server answers now."""
        if self._process is None or self._process.poll() is not None:
            return False
        try:
            with _opener.open(f"http://{HOST}:{self._port}/health", timeout=5.0) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def close(self) -> None:
        """Kill it and what it started."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)
        if process.stdin:
            process.stdin.close()

    def _arguments(self, path: str, rank: int) -> list[str]:
        """`rank` of the LoRA that vLLM computes beside the weights; 0 for none."""
        options: dict[str, Any] = {
            "model": path,
            "served-model-name": self._base if rank else self.model,
            "host": HOST,
            "port": self._port,
            "dtype": self._dtype,
            "max-model-len": self._max_tokens,
            "max-num-seqs": self._max_sequences,
            "kv-cache-memory-bytes": int(self._kv_cache_gib * 2**30),
            # What a label's probability is read from: the labels alone, not what they are held back from.
            "logprobs-mode": "processed_logprobs",
            # A model may else fill the space that JSON leaves it with line ends until it is cut.
            "structured-outputs-config": json.dumps({"backend": "xgrammar", "disable_any_whitespace": True}),
            "uvicorn-log-level": "warning",
        }
        if rank:
            # vLLM knows these ranks only.
            known = next((known for known in (1, 8, 16, 32, 64, 128, 256, 320, 512) if known >= rank), rank)
            options |= {"lora-modules": f"{self.model}={self._adapter}", "max-lora-rank": known}
        if not self._gpus:
            # The least that its CPU attention takes. Only whole blocks are remembered, and a question has less than the
            # usual 128 tokens; the two orders of a pair, and the samples of a prompt, share more than half of it.
            options["block-size"] = 32
        if self._gpus > 1:
            options["tensor-parallel-size"] = self._gpus
        flags = ["enable-prefix-caching", "disable-log-stats", "no-enable-log-requests"]
        flags += (["enable-lora"] if rank else []) + ([] if self._gpus else ["enforce-eager"])
        return [part for name, value in options.items() for part in (f"--{name}", str(value))] + [
            f"--{flag}" for flag in flags
        ]

    def _wait(self) -> None:
        until = time.monotonic() + self._start_timeout
        while not self.healthy():
            if self._process is None or self._process.poll() is not None:
                code = self._process.returncode if self._process else 0
                raise ClusterError(f"{self._key}: the judge's server ended with exit code {code}; {self._last_lines()}")
            if time.monotonic() > until:
                what = f"the judge's server on port {self._port} to answer"
                raise WaitTimeout(self._key, what, self._start_timeout, self._last_lines())
            time.sleep(_LOOK)

    def _last_lines(self) -> str:
        lines = self.log.read_text("utf-8", errors="replace").splitlines()[-_SHOWN:] if self.log.exists() else []
        return f"see {self.log}, which ends:\n" + "\n".join(lines)


_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _environment(threads: int) -> Mapping[str, str]:
    count = str(threads)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    paths = os.pathsep.join(path for path in sys.path if path)
    own = dict.fromkeys(names, count) | {
        "PYTHONPATH": paths,
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # a core of vLLM's choice may be busy
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
    }
    # In this process it may be off, for a rollout engine; a server needs it.
    without = ("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_CPU_KVCACHE_SPACE")
    return {name: value for name, value in os.environ.items() if name not in without} | own


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _rank(adapter: Path, key: str) -> int:
    try:
        return int(json.loads((adapter / "adapter_config.json").read_text("utf-8"))["r"])
    except (OSError, ValueError, KeyError, TypeError):
        raise RecipeError(
            f"{key} is {str(adapter)!r}: no LoRA is there; name a folder with adapter_config.json"
        ) from None
