"""What `rlhf doctor` asks in a process of its own: `python -m rlhf_platform.cli.health.probes PROBE [ARGUMENT]...`.

Prints the answer as JSON. What libraries print goes to standard error.
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def libraries() -> dict[str, Any]:
    """What torch can compute on, and whether audio goes through the stack unchanged."""
    return {"torch": _asked(_torch), "audio": _asked(_audio)}


def ray(address: str, seconds: str) -> dict[str, Any]:
    """Join the Ray at `address` as a run would, or start a local one when it is empty."""
    os.environ.pop("RAY_ADDRESS", None)
    return _asked(lambda: _ray(address, float(seconds)))


def _asked(question: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return question()
    except Exception as error:  # noqa: BLE001 - whatever a library raises is the finding
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0]}


def _torch() -> dict[str, Any]:
    import torch

    there = torch.cuda.is_available()
    has_nccl = there and torch.distributed.is_nccl_available()
    return {
        "version": torch.__version__,
        "cuda_build": torch.version.cuda,
        "gpus": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())] if there else [],
        "nccl": ".".join(map(str, torch.cuda.nccl.version())) if has_nccl else None,
    }


def _audio() -> dict[str, Any]:
    """Write and read 16-bit noise, and take its features."""
    import av
    import numpy as np
    import soundfile
    import torch
    from torchaudio.transforms import MelSpectrogram

    rng = np.random.default_rng(0)
    written = rng.integers(-(2**15), 2**15, size=16_000, dtype=np.int16)
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("wav", "flac"):
            path = Path(folder, f"clip.{suffix}")
            soundfile.write(path, written, 16_000, subtype="PCM_16")
            read, rate = soundfile.read(path, dtype="int16")
            if rate != 16_000 or not np.array_equal(read, written):
                return {"error": f"soundfile {soundfile.__version__} reads other samples from {suffix} than it wrote"}
    features = MelSpectrogram(16_000)(torch.from_numpy(written / 2**15).float())
    if not bool(torch.isfinite(features).all()):
        return {"error": "torchaudio's features of a clip are not finite"}
    return {"soundfile": soundfile.__version__, "av": av.__version__}


def _ray(address: str, seconds: float) -> dict[str, Any]:
    from rlhf_platform.recipe.schema import ClusterConfig, Recipe
    from rlhf_platform.train.cluster import cluster

    recipe = Recipe(name="doctor", cluster=ClusterConfig(address=address or None, connect_timeout=seconds))
    with cluster(recipe):
        import ray

        resources = ray.cluster_resources()
        return {"version": ray.__version__, "cpus": resources.get("CPU", 0), "gpus": resources.get("GPU", 0)}


PROBES: dict[str, Callable[..., dict[str, Any]]] = {"libraries": libraries, "ray": ray}

if __name__ == "__main__":
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        print(json.dumps(PROBES[sys.argv[1]](*sys.argv[2:])), file=answers, flush=True)
        os._exit(0)  # a library's thread may not end
