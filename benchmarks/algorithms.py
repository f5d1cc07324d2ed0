"""Does every algorithm learn? Held-out reward before and after, with each one's recipe of recipes/asr/, on one task.

    python benchmarks/algorithms.py                  three seeds; about an hour and a half on two cores
    python benchmarks/algorithms.py --only ppo dapo  some of them; the others' figures are kept
    python benchmarks/algorithms.py --quick          one shrunken seed: the same keys, no meaning

All start from the same warm start, so that rewards compare. `diff_ci95` is a bootstrap over the held-out clips, the
seeds of a clip drawn together: it says what other clips would give. The plot is benchmarks/results/algorithms.svg.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from line_chart import line_chart
from results import ROOT, write_results
from rich.console import Console
from rich.table import Table
from whole_runs import Run, run

from rewards.asr import wer_reward
from rewards.types import RewardInput
from rlhf_platform.evaluation.bootstrap import Interval, wer_difference
from rlhf_platform.evaluation.report import EvalResult

RECIPES = {
    "grpo": "quickstart",
    "dapo": "dapo",
    "gspo": "gspo",
    "rloo": "rloo",
    "reinforce_pp": "reinforce_pp",
    "ppo": "ppo",
    "dpo": "dpo",
}
STEPS = 40
KEYS = ["tracking.wandb=off", "checkpoint.every=0"]
QUICK = ["sft.steps=20", "rollout.prompts_per_step=4", "evaluation.max_clips=16"]
SMOOTH = 5
"""Steps on each side that a point of the plot is a mean over."""


def keys_of(name: str, seed: int, quick: bool, start: str | None) -> list[str]:
    keys = [*KEYS, f"seed={seed}", *(QUICK if quick else [])]
    if name != "dpo":
        keys.append(f"steps={2 if quick else STEPS}")
    if name == "dpo" and quick:
        keys += ["steps=2", "algorithm.rounds=1", "algorithm.batch_size=2", "algorithm.pairs_per_round=4"]
    if name == "ppo" and quick:
        keys.append("algorithm.critic_warmup=1")
    return keys + ([f"backbone.path={start}", "sft.steps=0"] if start else [])


def finished_or_run(name: str, run_name: str, scratch: Path, keys: Sequence[str]) -> Run:
    """A run that `--scratch` has from before, whole, or a new one."""
    facts = scratch / "runs" / run_name / "measured.json"
    if not facts.is_file():
        made = run(f"asr/{RECIPES[name]}.yaml", run_name, scratch, keys)
        facts.write_text(json.dumps([made.minutes, made.peak_gib]))
    return Run(facts.parent, *json.loads(facts.read_text()))


def rewards_of(result: EvalResult) -> list[float]:
    """The reward of each held-out clip's greedy answer."""
    return [wer_reward(RewardInput(u.prompt_id, u.hypothesis, reference=u.reference)) for u in result.utterances]


def gain_of(runs: Sequence[Run]) -> Interval:
    """Reward after less before, paired by clip."""
    lost = [[[1 - r for r in rewards_of(run.evaluation(when))] for run in runs] for when in ("before", "after")]
    before, after = (np.asarray(each) for each in lost)
    less = wer_difference(after, before, np.ones(before.shape[1]))
    return Interval(less.point, less.low, less.high, less.confidence)


def steps_of(runs: Sequence[Run]) -> list[list[dict[str, float]]]:
    """The metrics of each run's steps that sampled."""
    every = [[json.loads(line) for line in (r.folder / "metrics.jsonl").open()] for r in runs]
    return [[step for step in steps if "samples" in step] for steps in every]


def samples_per_second(runs: Sequence[Run]) -> float:
    """Of the RL steps, all of their phases counted."""
    steps = [step for steps in steps_of(runs) for step in steps]
    return sum(step["samples"] for step in steps) / sum(step["seconds"] for step in steps)


def smoothed(values: Sequence[float]) -> list[float]:
    return [mean(values[max(0, i - SMOOTH) : i + SMOOTH + 1]) for i in range(len(values))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one shrunken seed")
    parser.add_argument("--only", nargs="+", choices=RECIPES, help="these algorithms")
    parser.add_argument("--start", help="a finished warm start to begin from, instead of making one")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scratch", help="a folder for cache and runs; they stay, and finished runs are not run again")
    options = parser.parse_args()
    seeds = range(1 if options.quick else options.seeds)
    path = ROOT / "benchmarks" / "results" / f"algorithms{'.quick' if options.quick else ''}.json"
    figures: dict[str, Any] = {}
    with nullcontext(options.scratch) if options.scratch else tempfile.TemporaryDirectory() as folder:
        for name in options.only or RECIPES:
            runs = [
                finished_or_run(name, f"{name}-{seed}", Path(folder), keys_of(name, seed, options.quick, options.start))
                for seed in seeds
            ]
            found = {name: figures_of(runs)}
            if options.only and path.is_file():
                found = json.loads(path.read_text())["figures"] | found
            figures |= found
            print(write_results("algorithms", {n: figures[n] for n in RECIPES if n in figures}, options.quick))
    Console(width=140).print(table_of(figures))
    lines = {name: smoothed(found["reward_per_step"]) for name, found in figures.items() if found["reward_per_step"]}
    title = f"Reward of the samples, mean of {len(seeds)} seeds, smoothed over {2 * SMOOTH + 1} steps"
    path.with_suffix(".svg").write_text(line_chart(lines, title, "RL step", "1 - min(WER, 1)"))


def figures_of(runs: Sequence[Run]) -> dict[str, Any]:
    before, after = (mean(mean(rewards_of(r.evaluation(when))) for r in runs) for when in ("before", "after"))
    gain = gain_of(runs)
    return {
        "reward_before": round(before, 4),
        "reward_after": round(after, 4),
        "diff_ci95": [round(gain.low, 4), round(gain.high, 4)],
        "diff_per_seed": [round(gain_of([r]).point, 4) for r in runs],
        "samples_per_s": round(samples_per_second(runs), 1),
        "peak_gib": round(max(r.peak_gib for r in runs), 2),
        "minutes": round(mean(r.minutes for r in runs), 1),
        "reward_per_step": [round(mean(s["reward"] for s in same), 4) for same in zip(*steps_of(runs), strict=True)],
    }


def table_of(figures: dict[str, Any]) -> Table:
    table = Table(title="Held-out reward, 1 - min(WER, 1), of greedy answers before and after")
    for heading in ("algorithm", "before", "after", "difference, 95 %", "per seed", "samples/s", "GiB", "minutes"):
        table.add_column(heading, justify="left" if heading == "algorithm" else "right")
    for name, found in figures.items():
        low, high = found["diff_ci95"]
        table.add_row(
            name,
            f"{found['reward_before']:.3f}",
            f"{found['reward_after']:.3f}",
            f"{low:+.3f} to {high:+.3f}",
            " ".join(f"{value:+.3f}" for value in found["diff_per_seed"]),
            f"{found['samples_per_s']:.0f}",
            f"{found['peak_gib']:.1f}",
            f"{found['minutes']:.1f}",
        )
    return table


if __name__ == "__main__":
    main()
