"""The Realtime quickstart over three seeds: what PPO on a judge's word does to what nothing trained on.

Whole runs of recipes/realtime/quickstart.yaml, one per seed, which share data, warm start and judge. Figures are of all
seeds' answers to the held-out turns; intervals are of a bootstrap over sessions, each drawn with all its turns and all
its seeds. Latency is of the last seed's policy, with four requests in flight.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from results import ROOT, write_results
from rich.console import Console
from rich.table import Table

from rlhf_platform.data.manifest import of_split, read_manifest, to_prompt
from rlhf_platform.evaluation.arena import outcome
from rlhf_platform.evaluation.bootstrap import Interval, wer_difference, wer_interval
from rlhf_platform.evaluation.dialogue import EVASIVE, DialogueResult, read_dialogue
from rlhf_platform.evaluation.speech import QUALITY
from rollout.engine import RolloutEngine, SamplingSettings
from rollout.latency import InFlight

RUBRIC = "facts.kept"
LOAD = InFlight(4)
QUICK = [
    *("sft.steps=5", "steps=3", "evaluation.max_clips=12", "algorithm.critic_warmup=1"),
    *("judges[0].calibration.limit=10", "judges[0].calibration.minimum=0"),
]


def run_of_seed(seed: int, scratch: Path, keys: Sequence[str]) -> Path:
    """The folder of a whole run; one that is there already is taken as it is."""
    name = f"seed{seed}"
    folder = scratch / "runs" / name
    if not (folder / "results.json").is_file():
        places = [f"name={name}", f"runs_dir={scratch / 'runs'}", f"cache_dir={scratch / 'cache'}"]
        recipe = str(ROOT / "recipes" / "realtime" / "quickstart.yaml")
        command = [sys.executable, "-m", "rlhf_platform.cli.main", "run", recipe, *places, "tracking.wandb=off"]
        subprocess.run([*command, f"seed={seed}", *keys], cwd=ROOT, check=True)
    return folder


def by_session(results: Sequence[DialogueResult], values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums (R, S) and counts (S,) of values (R, N) over the sessions of the turns."""
    sessions = [reply.session for reply in results[0].replies]
    places = {session: number for number, session in enumerate(dict.fromkeys(sessions))}
    owner = np.array([places[session] for session in sessions])
    sums = np.stack([np.bincount(owner, row, len(places)) for row in values])
    return sums, np.bincount(owner, minlength=len(places)).astype(float)


def figures_of(before: Sequence[DialogueResult], after: Sequence[DialogueResult]) -> dict[str, Any]:
    """Of R seeds' answers to the same turns."""
    found: dict[str, Any] = {}
    wins = np.array(
        [
            [
                0.5 if (won := outcome(a, b, a.scores.get(QUALITY), b.scores.get(QUALITY), 0.0)) is None else won
                for a, b in zip(new.replies, old.replies, strict=True)
            ]
            for new, old in zip(after, before, strict=True)
        ]
    )
    rate = wer_interval(*by_session(after, wins))
    found |= {"win_rate": rate.point, "win_rate_ci95": _pair(rate)}
    for name, score in (("rubric", RUBRIC), ("evasive", EVASIVE)):
        old, new = (np.array([result.values(score) for result in side]) for side in (before, after))
        (sums_before, counts), (sums_after, _) = by_session(before, old), by_session(after, new)
        found |= {f"{name}_before": float(old.mean()), f"{name}_after": float(new.mean())}
        found[f"{name}_difference_ci95"] = _pair(wer_difference(sums_before, sums_after, counts))
    return found


def latency_of(checkpoint: Path, manifest: Path) -> dict[str, Any]:
    """First-token latency of a policy on the held-out turns."""
    prompts = [to_prompt(row) for row in of_split(read_manifest(manifest), "heldout")]
    engine = RolloutEngine("qwen3_asr", checkpoint, "float32", 400, 64, 0.5, clips=8)
    settings = SamplingSettings(1, 1.0, 48, 0)
    engine.generate(prompts[:4], settings)
    seen = engine.latency(prompts, LOAD, settings, timeout=600.0)
    engine.close()
    said = asdict(seen)
    return {
        "first_token_p50_s": said["first_p50"],
        "first_token_p95_s": said["first_p95"],
        "first_spoken_p50_s": said["spoken_p50"],
        "first_spoken_p95_s": said["spoken_p95"],
        "load": said["load"],
    }


def judging_of(folder: Path) -> dict[str, float]:
    """What judging cost in the RL steps of a run."""
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    verdicts = sum(step["samples"] * step["reward/preferred.verdicts"] for step in steps)
    tokens = sum(step["samples"] * step["reward/preferred.tokens"] for step in steps)
    seconds = sum(step["seconds/reward"] for step in steps)
    return {
        "verdicts_per_second": verdicts / seconds,
        "judge_tokens_per_second": tokens / seconds,
        "judge_cache_hit_rate": float(np.mean([step["reward/preferred.cached"] for step in steps])),
        "judging_share_of_step": seconds / sum(step["seconds"] for step in steps),
        "judging_during_rollout": float(np.mean([step["reward_overlap"] for step in steps])),
    }


def _pair(found: Interval) -> list[float]:
    return [found.low, found.high]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, next to no training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scratch", type=Path, default=Path("runs/benchmark_realtime"))
    options = parser.parse_args()
    scratch, keys = options.scratch.resolve(), QUICK if options.quick else []
    folders = [run_of_seed(seed, scratch, keys) for seed in range(1 if options.quick else options.seeds)]
    before, after = ([read_dialogue(folder, label) for folder in folders] for label in ("before RL", "after RL"))
    figures = figures_of(before, after)
    (manifest,) = (scratch / "cache" / "data").glob("dialogue-*/manifest.jsonl")
    figures |= latency_of(folders[-1] / "checkpoint", manifest) | judging_of(folders[-1])
    shown = Table("figure", "value", title="Realtime: held-out dialogue before and after PPO")
    for name, value in figures.items():
        shown.add_row(
            name,
            str([round(each, 3) for each in value])
            if isinstance(value, list)
            else f"{value:.4g}"
            if isinstance(value, float)
            else value,
        )
    Console().print(shown)
    print(write_results("realtime", figures, options.quick))


if __name__ == "__main__":
    main()
