"""Our RL step beside that of TRL's GRPOTrainer, on one text-to-token task: samples per second, memory, what is learnt.

    python benchmarks/vs_trl.py          settings of both tried, then both sides in turn; about a quarter of an hour
    python benchmarks/vs_trl.py --bare   the same on prompts of a few words
    python benchmarks/vs_trl.py --quick  few steps of half the prompts: the same keys, no meaning

Each side is a process of its own with `--threads` cores. Start-up and the first steps, which compile, do not count. All
rounds start from the same policy. `ratio` is of samples per second: the median over the rounds that took turns. The
machine must have nothing else to do: the sides suffer from company in different measure.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import psutil
from results import ROOT, write_results
from rich.console import Console
from rich.table import Table
from vs_trl_task import Job, build
from whole_runs import watch

COLOCATED = {
    "use_vllm": True,
    "vllm_mode": "colocate",
    "vllm_gpu_memory_utilization": 0.1,
    "vllm_max_model_length": 256,
}
TRL_SETTINGS: dict[str, tuple[int, dict[str, Any]]] = {
    "transformers": (2, {}),
    "transformers, one thread": (1, {}),
    "transformers, 2 x 64": (2, {"per_device_train_batch_size": 64, "gradient_accumulation_steps": 2}),
    "transformers, 4 x 32": (2, {"per_device_train_batch_size": 32, "gradient_accumulation_steps": 4}),
    "vLLM in the process": (2, COLOCATED),
}
"""Threads, and keys of GRPOConfig beside those of vs_trl_trl.py. N x M: N forwards of M samples to a step."""
OUR_SETTINGS: dict[str, dict[str, Any]] = {f"micro-batches of {size}": {"micro_batch_size": size} for size in (16, 32)}
TEACHING = 40
"""Supervised steps before RL: enough for about 0.6 of the reward, so that completions end and much is left to learn."""
WARM_UP = 2
"""Steps of each process that do not count."""


@dataclass(frozen=True)
class Timed:
    """One process of one side."""

    start: float
    """Seconds until the first step."""
    steps: Sequence[Mapping[str, Any]]
    """Those that count."""
    rewards: Sequence[float]
    """Of all steps."""
    peak_gib: float

    def samples_per_s(self, samples: int) -> float:
        return samples * len(self.steps) / sum(step["seconds"] for step in self.steps)


def timed(side: str, job: Job) -> Timed | str:
    """Run a side; what it failed with, if it did."""
    Path(job.out).unlink(missing_ok=True)
    # Ray starts its workers at niceness 15: beside anything else on the machine they would be handicapped.
    environment = os.environ | {"RAY_worker_niceness": "0", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    environment["OMP_NUM_THREADS"] = str(job.threads if side == "trl" else 1)
    command = [sys.executable, str(ROOT / "benchmarks" / f"vs_trl_{side}.py"), json.dumps(asdict(job))]
    with Path(job.out).with_suffix(".log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=ROOT)
    peak = [0.0]
    threading.Thread(target=watch, args=(psutil.Process(process.pid), peak), daemon=True).start()
    if process.wait() != 0:
        return next((line for line in reversed(Path(log.name).read_text().splitlines()) if "Error" in line), "failed")
    found = json.loads(Path(job.out).read_text())
    return Timed(found["start"], found["steps"][WARM_UP:], [step["reward"] for step in found["steps"]], peak[0])


def tried(side: str, settings: Mapping[str, Job], samples: int) -> dict[str, float | str]:
    """Samples per second of each setting, or its error; one setting alone needs no trial."""
    if len(settings) == 1:
        return {}
    found: dict[str, float | str] = {}
    for name, job in settings.items():
        result = timed(side, job)
        found[name] = result if isinstance(result, str) else round(result.samples_per_s(samples), 1)
        print(f"{side}: {name}: {found[name]}", flush=True)
    return found


def best(settings: Mapping[str, Job], found: Mapping[str, float | str]) -> str:
    """The fastest setting that ran."""
    if len(settings) == 1:
        return next(iter(settings))
    rates = {name: rate for name, rate in found.items() if isinstance(rate, float)}
    if not rates:
        sys.exit(f"no setting ran: {found}")
    return max(rates, key=lambda name: rates[name])


def side_figures(runs: Sequence[Timed], samples: int) -> dict[str, Any]:
    steps = [step for run in runs for step in run.steps]
    phases = sorted({phase for step in steps for phase in step["phases"]})
    found = {phase: mean(step["phases"].get(phase, 0.0) for step in steps) for phase in phases}
    found["other"] = mean(step["seconds"] for step in steps) - sum(found.values())
    part = max(1, len(runs[0].rewards) // 4)
    return {
        "samples_per_s": round(median(run.samples_per_s(samples) for run in runs), 1),
        "samples_per_s_by_round": [round(run.samples_per_s(samples), 1) for run in runs],
        "seconds_per_step": {name: round(value, 3) for name, value in found.items()},
        "start_s": round(median(run.start for run in runs), 1),
        "completion_tokens": round(mean(step["tokens"] for step in steps), 1),
        "reward_start": round(mean(mean(run.rewards[:part]) for run in runs), 3),
        "reward_end": round(mean(mean(run.rewards[-part:]) for run in runs), 3),
        "peak_gib": round(max(run.peak_gib for run in runs), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few steps of half the prompts")
    parser.add_argument("--bare", action="store_true", help="prompts of a few words, without an instruction")
    parser.add_argument("--rounds", type=int, help="times that the sides take turns (3; 1 with --quick)")
    parser.add_argument("--threads", type=int, default=2, help="cores that each side has")
    options = parser.parse_args()
    quick: bool = options.quick
    rounds = options.rounds or (1 if quick else 3)
    prompts, group, steps = (8, 8, 4) if quick else (16, 8, 20)
    samples = prompts * group
    with tempfile.TemporaryDirectory() as folder:
        model = str(Path(folder) / "model")
        build(Path(model), TEACHING, options.bare)

        def job(setting: Mapping[str, Any], threads: int, seed: int, count: int) -> Job:
            return Job(
                model, str(Path(folder) / "out.json"), count, prompts, group, seed, threads, options.bare, dict(setting)
            )

        trial = WARM_UP + (2 if quick else 4)
        theirs = {n: job(s, min(t, options.threads), 0, trial) for n, (t, s) in TRL_SETTINGS.items()}
        ours = {n: job(s, options.threads, 0, trial) for n, s in OUR_SETTINGS.items()}
        if quick:
            theirs = {n: j for n, j in theirs.items() if n == "transformers"}
            ours = {n: j for n, j in ours.items() if n == "micro-batches of 16"}
        rates = {"trl": tried("trl", theirs, samples), "ours": tried("ours", ours, samples)}
        chosen = {"trl": best(theirs, rates["trl"]), "ours": best(ours, rates["ours"])}
        jobs = {"trl": theirs[chosen["trl"]], "ours": ours[chosen["ours"]]}
        runs: dict[str, list[Timed]] = {"ours": [], "trl": []}
        for seed in range(rounds):
            for side, done in runs.items():
                result = timed(side, job(jobs[side].setting, jobs[side].threads, seed, steps))
                if isinstance(result, str):
                    sys.exit(f"{side}: {result}")
                done.append(result)
                print(f"round {seed}: {side}: {result.samples_per_s(samples):.1f} samples/s", flush=True)
    sides = {side: side_figures(done, samples) for side, done in runs.items()}
    ratios = [a.samples_per_s(samples) / b.samples_per_s(samples) for a, b in zip(*runs.values(), strict=True)]
    figures = {
        **{f"{side}_samples_per_s": found["samples_per_s"] for side, found in sides.items()},
        "ratio": round(median(ratios), 2),
        "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
        **{f"{side}_peak_gib": found["peak_gib"] for side, found in sides.items()},
        "chosen": chosen,
        "tried_samples_per_s": rates,
        "prompts_per_step": prompts,
        "group_size": group,
        "steps": steps,
        "warm_up_steps": WARM_UP,
        "rounds": rounds,
        **sides,
    }
    Console(width=120).print(table_of(sides))
    print(json.dumps({k: figures[k] for k in ("ratio", "ratio_range", "chosen", "tried_samples_per_s")}, indent=1))
    print("written to", write_results("vs_trl_bare" if options.bare else "vs_trl", figures, quick))


def table_of(sides: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(title="The same task, samples per second of RL steps")
    for heading in ("side", "samples/s", "GiB", "start, s", "tokens", "reward", "seconds of a step"):
        table.add_column(heading)
    for side, found in sides.items():
        numbers = (str(found[key]) for key in ("samples_per_s", "peak_gib", "start_s", "completion_tokens"))
        phases = ", ".join(f"{name} {value:.2f}" for name, value in found["seconds_per_step"].items())
        table.add_row(side, *numbers, f"{found['reward_start']:.3f} to {found['reward_end']:.3f}", phases)
    return table


if __name__ == "__main__":
    main()
