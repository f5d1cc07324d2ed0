"""How close are the memory figures of `rlhf plan` to what real actors take?

    python benchmarks/plan.py          three recipes, three RL steps each; some ten minutes
    python benchmarks/plan.py --quick  the tiny backbone alone, one step: the same keys for it

Rollout workers and learner ranks are the Ray actors of a run. They get samples of the greatest length that the recipe
allows, since that is what is planned for. Their proportional set size is read some fifty times a second, and the
highest is `measured`; `predicted` is the plan's. A `ratio` is predicted over measured. `*_model_ratio` leaves the
process out: of measured that of an actor which only imports, of predicted the plan's constant. For the tiny model it
compares some tens of MB and says little. `process_gib` is what the constants in `rlhf_platform/planning/actors.py`
are from.
"""

import argparse
import importlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
from results import ROOT, write_results

from policies.build import build_backbone
from policies.load import load_adapter
from rlhf_platform.data import demo
from rlhf_platform.data.manifest import of_split, read_manifest, to_prompt
from rlhf_platform.learner.process_group import Rendezvous, free_port
from rlhf_platform.learner.samples import TrainSample
from rlhf_platform.learner.worker import LearnerWorker
from rlhf_platform.planning.actors import PROCESS, ActorMemory
from rlhf_platform.planning.observed import Clips
from rlhf_platform.planning.plan import memory_of
from rlhf_platform.recipe.load import load_recipe
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.train.cluster import actor_options, cluster
from rlhf_platform.types import Prompt, Sample, StopReason
from rollout.engine import SamplingSettings
from rollout.worker import RolloutWorker

GIB = 2**30
COMMON = ("cluster.cpus=2", "algorithm.kl_coef=0.04")
CASES = {
    "tiny": ("quickstart.yaml", ("backbone.window=6", "rollout.max_new_tokens=32")),
    "tiny_zero_2": (
        "quickstart.yaml",
        ("backbone.window=6", "rollout.max_new_tokens=32", "learner.workers=2", "learner.zero_stage=2"),
    ),
    "whisper_tiny_en": ("whisper_tiny.yaml", ("learner.micro_batch_size=16",)),
}
IMPORTS = {
    "learner": ("deepspeed", "rlhf_platform.learner.worker"),
    "rollout": (
        "vllm",
        "rollout.worker",
        "vllm.v1.engine.llm_engine",
        "vllm.v1.worker.cpu_worker",
        "vllm.model_executor.models.whisper",
        "vllm.model_executor.models.qwen3_asr",
        "policies.vllm_whisper",
    ),
    "reward": ("rewards.worker",),
}
"""What an actor imports before it has a model."""
COLUMNS = ("predicted_gib", "measured_gib", "ratio", "model_ratio")


@ray.remote
class OnlyImports:
    """An actor without a model."""

    def load(self, names: Sequence[str]) -> None:
        for name in names:
            importlib.import_module(name)


class Peak:
    """Follows a process in a thread; `gib` is the largest proportional set size since it was made."""

    def __init__(self, actor: Any) -> None:
        self._pid = ray.get(actor.__ray_call__.remote(lambda _: os.getpid()))
        self.gib, self._done = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """What was found, GiB."""
        self._done.set()
        self._thread.join()
        return max(self.gib, pss(self._pid))

    def _watch(self) -> None:
        while not self._done.is_set():
            self.gib = max(self.gib, pss(self._pid))
            time.sleep(0.02)


def pss(pid: int) -> float:
    """Proportional set size, GiB: memory of a process, pages that it shares divided among those who share them."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 2**20
    raise ValueError(f"no Pss of process {pid}")


@dataclass(frozen=True)
class Case:
    """A recipe with a checkpoint and clips to run it on."""

    recipe: Recipe
    model: Path
    prompts: list[Prompt]

    def samples(self) -> list[TrainSample]:
        """A step's samples, each as long as may be."""
        pieces = load_adapter(self.recipe.backbone.adapter, self.model).completion_token_ids
        length = self.recipe.rollout.max_new_tokens
        made = []
        for number in range(len(self.prompts) * self.recipe.algorithm.group_size):
            tokens = tuple(pieces[(7 * number + k) % len(pieces)] for k in range(length))
            prompt = self.prompts[number // self.recipe.algorithm.group_size]
            sample = Sample(prompt, tokens, (-4.0,) * length, "", StopReason.LENGTH, 0)
            made.append(TrainSample(sample, advantage=1.0 - number % 3, counts=True))
        return made


def prepare(name: str, folder: Path) -> Case:
    file, keys = CASES[name]
    recipe = load_recipe(ROOT / "recipes" / "asr" / file, [*COMMON, *keys]).recipe
    rows = of_split(read_manifest(demo.build("recorded", folder)), "train")
    # The longest that the window takes: the plan is for clips as long as the window.
    fitting = sorted((row for row in rows if row.duration <= recipe.backbone.window), key=lambda row: -row.duration)
    prompts = [to_prompt(row) for row in fitting[: recipe.rollout.prompts_per_step]]
    built, cut = folder / f"{name}-built", folder / f"{name}-cut"
    build_backbone(recipe.backbone, [row.text for row in rows], built)
    adapter = load_adapter(recipe.backbone.adapter, built)
    if adapter.window() in (None, recipe.backbone.window):
        return Case(recipe, built, prompts)
    adapter.cut_window(recipe.backbone.window, cut)
    return Case(recipe, cut, prompts)


def measure(case: Case, steps: int) -> dict[str, float]:
    """Peak GiB of a learner rank and of a rollout worker over `steps` RL steps, one after the other."""
    recipe = case.recipe
    learners, last = _learners(case, steps)
    rollout: Any = RolloutWorker
    worker = rollout.options(**actor_options(recipe.rollout.cpus)).remote(recipe, str(case.model))
    peak = Peak(worker)
    ray.get(worker.start.remote(case.prompts[:2]))
    for step in range(steps):
        settings = SamplingSettings(recipe.algorithm.group_size, 1.0, recipe.rollout.max_new_tokens, step)
        ray.get(worker.generate.remote(case.prompts, settings))
        ray.get(worker.load_weights.remote(last))
    found = {"learner": learners, "rollout": peak.stop()}
    ray.kill(worker)
    return found


def _learners(case: Case, steps: int) -> tuple[float, Any]:
    """Peak GiB of the rank that takes most, and the weights after the last step, as a reference."""
    recipe, samples = case.recipe, case.samples()
    actor: Any = LearnerWorker
    ranks = recipe.learner.workers
    options = actor_options(recipe.learner.cpus)
    workers = [actor.options(**options).remote(recipe, str(case.model)) for _ in range(ranks)]
    peaks = [Peak(worker) for worker in workers]
    port, share = free_port(), len(samples) // ranks
    meet = [Rendezvous(rank, ranks, "127.0.0.1", port, 300.0) for rank in range(ranks)]
    ray.get([worker.start.remote(place) for worker, place in zip(workers, meet, strict=True)])
    for step in range(steps):
        parts = [samples[rank * share : (rank + 1) * share] for rank in range(ranks)]
        ray.get([worker.train.remote(part) for worker, part in zip(workers, parts, strict=True)])
        sent = [worker.weights.remote(step) for worker in workers]
        ray.wait(sent, num_returns=ranks)
    highest = max(peak.stop() for peak in peaks)
    for worker in workers:
        ray.kill(worker)
    return highest, ray.put(ray.get(sent[0]))


def processes() -> dict[str, float]:
    """GiB of an actor of each kind that has imported and holds nothing, and of the run with Ray's own."""
    found = {}
    for kind, names in IMPORTS.items():
        actor: Any = OnlyImports
        only = actor.options(**actor_options(1)).remote()
        peak = Peak(only)
        ray.get(only.load.remote(names))
        found[kind] = peak.stop()
        ray.kill(only)
    found["run_and_ray"] = sum(size for name, size in family() if not name.startswith(("ray::IDLE", "ray::Only")))
    return found


def family() -> Iterator[tuple[str, float]]:
    """Name and GiB of this process and of all that it started."""
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        with suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):  # ended meanwhile
            yield process.name(), pss(process.pid)


def figures_of(
    measured: dict[str, float], predicted: dict[str, ActorMemory], bare: dict[str, float]
) -> dict[str, float]:
    figures: dict[str, float] = {}
    for kind in ("learner", "rollout"):
        planned = predicted[kind].on_host / GIB
        figures |= {f"{kind}_predicted_gib": planned, f"{kind}_measured_gib": measured[kind]}
        figures[f"{kind}_ratio"] = planned / measured[kind]
        figures[f"{kind}_model_ratio"] = (planned - PROCESS[kind] / GIB) / max(measured[kind] - bare[kind], 1e-3)
    return {name: round(value, 3) for name, value in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the tiny backbone alone, one step")
    quick: bool = parser.parse_args().quick
    names, steps = (["tiny"], 1) if quick else (list(CASES), 3)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        cases = {name: prepare(name, Path(folder)) for name in names}
        with cluster(cases[names[0]].recipe):
            bare = processes()
            figures["process_gib"] = {kind: round(size, 3) for kind, size in bare.items()}
            for name, case in cases.items():
                seconds = [prompt.duration for prompt in case.prompts]
                clips = Clips(len(seconds), sum(seconds) / len(seconds), max(seconds))
                figures[name] = figures_of(measure(case, steps), memory_of(case.recipe, clips), bare)
                print(name, json.dumps(figures[name], indent=1), flush=True)
    print(f"{'recipe':18}{'actor':10}{'predicted':>12}{'measured':>12}{'ratio':>8}{'without process':>18}")
    for name in names:
        for kind in ("learner", "rollout"):
            row = [
                figures[name][f"{kind}_{what}"] for what in ("predicted_gib", "measured_gib", "ratio", "model_ratio")
            ]
            print(f"{name:18}{kind:10}{row[0]:9.2f} GiB{row[1]:9.2f} GiB{row[2]:8.2f}{row[3]:18.2f}")
    print("written to", write_results("plan", figures, quick))


if __name__ == "__main__":
    main()
