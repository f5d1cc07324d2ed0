"""Does RL make a pretrained Whisper better on recordings it has not heard? Three seeds, against supervised tuning.

    python benchmarks/whisper.py          three seeds, each once by RL and once supervised; about an hour
    python benchmarks/whisper.py --quick  one shrunken seed, a few minutes: the same keys, no meaning

Supervised tuning learns from the same clips with the same number of updates and the same frozen encoder. `sampled_wer`
is that of one sample at temperature 1 per held-out clip; `digits_spelt` counts "press 1" as "press one", which the
transcripts write and RL learns too. The whole run also writes docs/whisper_examples.md.
"""

import argparse
import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from results import ROOT, write_results
from rich.console import Console
from whole_runs import Run, run

from rlhf_platform.data.manifest import of_split, read_manifest, to_prompt
from rlhf_platform.evaluation.report import EvalResult, Row, compare, evaluate, render
from rlhf_platform.types import Prompt
from rollout.engine import RolloutEngine, SamplingSettings

RECIPE = "asr/whisper_tiny.yaml"
QUICK = ["rollout.prompts_per_step=2", "evaluation.max_clips=16"]
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PAGE = """# Twenty held-out clips before and after

Written by `python benchmarks/whisper.py` (seed 0): every clip in turn from an even spread over the held-out split, not
chosen by result. The same table with the sound of each clip is in the run's W&B files, `heldout_before_and_after`. To
hear the clips without a run: `rlhf data build recorded --out data/recorded`.

"""


def sampled(recipe: dict[str, Any], checkpoint: Path | str, prompts: Sequence[Prompt], label: str) -> EvalResult:
    """One sample at temperature 1 of each prompt, by the run's own engine settings."""
    rollout = recipe["rollout"]
    sizes = rollout["max_tokens"], rollout["max_sequences"], rollout["kv_cache_gib"]
    engine = RolloutEngine("whisper", checkpoint, "float32", *sizes)
    samples = engine.generate(prompts, SamplingSettings(1, 1.0, rollout["max_new_tokens"], seed=0))
    engine.close()
    return evaluate(label, prompts, [s.text for s in samples])


def spelt(result: EvalResult, prompts: Sequence[Prompt]) -> EvalResult:
    """The same hypotheses with each digit written as a word."""
    texts = (re.sub(r"\d", lambda digit: f" {DIGITS[int(digit[0])]} ", u.hypothesis) for u in result.utterances)
    return evaluate(result.label, prompts, list(texts))


def figures_of(rows: dict[str, list[Row]], group: str) -> dict[str, Any]:
    greedy, at_one, supervised, words = (next(r for r in rows[kind] if r.group == group) for kind in rows)
    return {
        "wer_before": round(greedy.before.wer, 4),
        "wer_after": round(greedy.after.wer, 4),
        "wer_diff_ci95": [round(greedy.difference.low, 4), round(greedy.difference.high, 4)],
        "sampled_wer_before": round(at_one.before.wer, 4),
        "sampled_wer_after": round(at_one.after.wer, 4),
        "sft_wer": round(supervised.after.wer, 4),
        "digits_spelt": [round(words.before.wer, 4), round(words.after.wer, 4)],
        "digits_spelt_diff_ci95": [round(words.difference.low, 4), round(words.difference.high, 4)],
        "sft_diff_ci95": [round(supervised.difference.low, 4), round(supervised.difference.high, 4)],
    }


def seed_of(before: EvalResult, run: Run) -> dict[str, Any]:
    rows = compare([before], [run.evaluation("after")])
    found = {row.group: [round(limit, 4) for limit in (row.difference.low, row.difference.high)] for row in rows}
    return {"wer_after": {row.group: round(row.after.wer, 4) for row in rows}, "wer_diff_ci95": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one shrunken seed")
    quick: bool = parser.parse_args().quick
    steps = 2 if quick else yaml.safe_load((ROOT / "recipes" / RECIPE).read_text())["steps"]
    more = QUICK if quick else []
    rl: list[Run] = []
    supervised: list[Run] = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        # A run without RL steps evaluates once, after its supervised tuning: "before RL".
        for seed in [0] if quick else [0, 1, 2]:
            rl.append(run(RECIPE, f"rl-{seed}", scratch, [f"seed={seed}", f"steps={steps}", *more]))
            tuning = [f"sft.steps={steps}", "steps=0", f"sft.seed={seed}", *more]
            supervised.append(run(RECIPE, f"sft-{seed}", scratch, tuning))
        (manifest,) = (scratch / "cache" / "data").glob("*/manifest.jsonl")
        held_out = [to_prompt(row) for row in of_split(read_manifest(manifest), "heldout")]
        known = {u.prompt_id for u in rl[0].evaluation("before").utterances}
        prompts = [p for p in held_out if p.id in known]
        recipe = yaml.safe_load((rl[0].folder / "recipe.yaml").read_text())
        sampled_before = sampled(recipe, rl[0].results["start_checkpoint"], prompts, "before RL")
        sampled_after = [sampled(recipe, r.folder / "checkpoint", prompts, "after RL") for r in rl]
        before = rl[0].evaluation("before")
        rows = {
            "greedy": compare([before], [r.evaluation("after") for r in rl]),
            "sampled": compare([sampled_before], sampled_after),
            "supervised": compare([before], [r.evaluation("before") for r in supervised]),
            "digits spelt": compare([spelt(before, prompts)], [spelt(r.evaluation("after"), prompts) for r in rl]),
        }
        figures: dict[str, Any] = {
            **{group: figures_of(rows, group) for group in ("clean", "telephone")},
            "per_seed": [seed_of(before, r) for r in rl],
            "minutes": round(max(r.minutes for r in rl), 1),
            "sft_minutes": round(max(r.minutes for r in supervised), 1),
            "peak_gib": round(max(r.peak_gib for r in rl), 2),
            "max_logprob_diff": max(r.results["max_logprob_diff"] for r in rl),
        }
        if not quick:
            table = (rl[0].folder / "examples.md").read_text()
            (ROOT / "docs" / "whisper_examples.md").write_text(PAGE + table)
    for kind, found in rows.items():
        Console(width=160).print(render(found, f"Held-out WER, %, {kind}, {len(rl)} seeds"))
    print(json.dumps(figures, indent=1))
    print("written to", write_results("whisper", figures, quick))


if __name__ == "__main__":
    main()
