"""Does the quickstart keep its word? Held-out WER before and after RL over three seeds, minutes, memory, log-probs.

    python benchmarks/quickstart.py          three seeds, each with a warm start of its own; about half an hour
    python benchmarks/quickstart.py --quick  one shrunken seed, about two minutes: the same keys, no meaning

The first run starts with an empty cache; the second run is the first seed again, with what the first left there.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from results import ROOT, write_results
from rich.console import Console

from rlhf_platform.evaluation.report import EvalResult, compare, render

QUICK = ["sft.steps=20", "steps=2", "rollout.prompts_per_step=4", "evaluation.max_clips=16"]


@dataclass(frozen=True)
class Run:
    """One run of the recipe from the command line."""

    folder: Path
    minutes: float
    peak_gib: float

    def evaluation(self, when: str) -> EvalResult:
        return EvalResult.from_json((self.folder / f"evaluation_{when}_RL.json").read_text())


def run(name: str, scratch: Path, seed: int, quick: bool) -> Run:
    """`rlhf run` in a process of its own, timed, with the memory of all its processes watched."""
    keys = [f"name={name}", f"seed={seed}", f"sft.seed={seed}", f"backbone.tiny.seed={seed}"]
    keys += [f"cache_dir={scratch / 'cache'}", f"runs_dir={scratch / 'runs'}", *(QUICK if quick else [])]
    command = [sys.executable, "-m", "rlhf_platform.cli.main", "run", str(ROOT / "recipes/asr/quickstart.yaml"), *keys]
    start = time.monotonic()
    process = subprocess.Popen(command)
    peak = [0.0]
    watcher = threading.Thread(target=_watch, args=(psutil.Process(process.pid), peak), daemon=True)
    watcher.start()
    if process.wait() != 0:
        sys.exit(f"{name} ended with code {process.returncode}")
    return Run(scratch / "runs" / name, (time.monotonic() - start) / 60, peak[0])


def _watch(process: psutil.Process, peak: list[float]) -> None:
    """Keep the largest sum over the process tree of proportional set sizes: shared pages count once."""
    while process.is_running():
        total = 0
        try:
            for member in [process, *process.children(recursive=True)]:
                try:
                    total += member.memory_full_info().pss
                except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                    continue  # ended between listing and reading
        except psutil.NoSuchProcess:
            return
        peak[0] = max(peak[0], total / 2**30)
        time.sleep(2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one shrunken seed")
    quick: bool = parser.parse_args().quick
    seeds = [0] if quick else [0, 1, 2]
    with tempfile.TemporaryDirectory() as folder:
        runs = [run(f"seed-{seed}", Path(folder), seed, quick) for seed in seeds]
        second = run("second", Path(folder), seeds[0], quick)
        before, after = ([r.evaluation(when) for r in runs] for when in ("before", "after"))
        results = [json.loads((r.folder / "results.json").read_text()) for r in [*runs, second]]
    rows = compare(before, after)
    Console(width=160).print(render(rows, f"Held-out WER, %, pooled over {len(seeds)} seeds"))
    pooled = rows[0]
    figures = {
        "wer_before": round(pooled.before.wer, 4),
        "wer_after": round(pooled.after.wer, 4),
        "wer_diff_ci95": [round(pooled.difference.low, 4), round(pooled.difference.high, 4)],
        "per_seed": [
            {
                "seed": seed,
                "wer_before": round(result["wer_before"], 4),
                "wer_after": round(result["wer_after"], 4),
                "wer_diff_ci95": [round(limit, 4) for limit in result["wer_difference_interval"]],
                "minutes": round(r.minutes, 1),
            }
            for seed, r, result in zip(seeds, runs, results, strict=False)
        ],
        "first_run_minutes": round(runs[0].minutes, 1),
        "second_run_minutes": round(second.minutes, 1),
        "peak_gib": round(max(r.peak_gib for r in [*runs, second]), 2),
        "max_logprob_diff": max(result["max_logprob_diff"] for result in results),
    }
    print(json.dumps(figures, indent=1))
    print("written to", write_results("quickstart", figures, quick))


if __name__ == "__main__":
    main()
