"""Does the quickstart keep its word? Held-out WER before and after RL over three seeds, minutes, memory, log-probs.

    python benchmarks/quickstart.py          three seeds, each with a warm start of its own; about half an hour
    python benchmarks/quickstart.py --quick  one shrunken seed, about two minutes: the same keys, no meaning

The first run starts with an empty cache; the second run is the first seed again, with what the first left there.
"""

import argparse
import json
import tempfile
from pathlib import Path

from results import write_results
from rich.console import Console
from whole_runs import run

from rlhf_platform.evaluation.report import compare, render

RECIPE = "asr/quickstart.yaml"
QUICK = ["sft.steps=20", "steps=2", "rollout.prompts_per_step=4", "evaluation.max_clips=16"]


def keys_of(seed: int, quick: bool) -> list[str]:
    return [f"seed={seed}", f"sft.seed={seed}", f"backbone.tiny.seed={seed}", *(QUICK if quick else [])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one shrunken seed")
    quick: bool = parser.parse_args().quick
    seeds = [0] if quick else [0, 1, 2]
    with tempfile.TemporaryDirectory() as folder:
        runs = [run(RECIPE, f"seed-{seed}", Path(folder), keys_of(seed, quick)) for seed in seeds]
        second = run(RECIPE, "second", Path(folder), keys_of(seeds[0], quick))
        before, after = ([r.evaluation(when) for r in runs] for when in ("before", "after"))
        results = [r.results for r in [*runs, second]]
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
