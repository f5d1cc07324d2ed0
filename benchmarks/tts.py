"""The TTS branch from SFT to PPO over three seeds: what each stage does to what trained nothing.

Whole runs of recipes/tts/quickstart.yaml, one per seed, which share the speaking backbone and the data. Figures are of
all seeds' answers to the held-out prompts; intervals are of a bootstrap over prompts, each drawn with all its seeds.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
from results import ROOT, write_results
from rich.console import Console
from rich.table import Table

from rlhf_platform.evaluation.arena import outcome
from rlhf_platform.evaluation.bootstrap import wer_difference, wer_interval
from rlhf_platform.evaluation.speech import QUALITY, SpeechResult
from rlhf_platform.train.measures import last_speech

STAGES = ("sft_global", "sft_inline", "dpo", "ppo")
START = "sft_inline"
SCORES = {
    "cer": "cer.cer",
    "similarity": "similarity.cosine",
    "mos_proxy": "mos.mos",
    "instruction_accuracy": "instruction.accuracy",
}
QUICK = [
    "sft_global:sft.steps=20",
    "sft_inline:sft.steps=20",
    "pairs:algorithm.prompts=16",
    "reward_model:steps=4",
    "dpo:steps=4",
    "ppo:steps=4",
    "evaluation.max_clips=12",
]


def run_of_seed(seed: int, scratch: Path, keys: Sequence[str]) -> dict[str, SpeechResult]:
    """The held-out answers after each stage that speaks."""
    name = f"seed{seed}"
    places = [f"name={name}", f"runs_dir={scratch / 'runs'}", f"cache_dir={scratch / 'cache'}", "tracking.wandb=off"]
    recipe = str(ROOT / "recipes" / "tts" / "quickstart.yaml")
    command = [sys.executable, "-m", "rlhf_platform.cli.main", "run", recipe, *places]
    subprocess.run([*command, f"seed={seed}", f"sft.seed={seed}", *keys], cwd=ROOT, check=True)
    found: dict[str, SpeechResult] = {}
    for stage in STAGES:
        (folder,) = (scratch / "runs" / name).glob(f"{stage}-*")
        result = last_speech(folder)
        assert result is not None
        found[stage] = result
    return found


def matrix(results: Sequence[SpeechResult], score: str) -> np.ndarray:
    """A score (R, N) of R seeds' answers to N prompts; what did not come out counts as the worst that did."""
    values = np.array([result.values(score) for result in results])
    worst = np.nanmax(values) if score == SCORES["cer"] else np.nanmin(values)
    return np.where(np.isfinite(values), values, worst)


def wins(stage: Sequence[SpeechResult], start: Sequence[SpeechResult]) -> np.ndarray:
    """(R, N): 1 where the stage's answer wins against the start's of the same seed, 0.5 a tie."""
    return np.array(
        [
            [
                0.5 if (found := outcome(a, b, a.scores.get(QUALITY), b.scores.get(QUALITY), 0.0)) is None else found
                for a, b in zip(after.said.values(), before.said.values(), strict=True)
            ]
            for after, before in zip(stage, start, strict=True)
        ]
    )


def figures_of(stage: Sequence[SpeechResult], start: Sequence[SpeechResult]) -> dict[str, Any]:
    prompts = np.ones(len(stage[0].said))
    found: dict[str, Any] = {name: float(matrix(stage, score).mean()) for name, score in SCORES.items()}
    cer = wer_difference(matrix(start, SCORES["cer"]), matrix(stage, SCORES["cer"]), prompts)
    found["cer_difference_ci95"] = [cer.low, cer.high]
    own = wer_interval(matrix(stage, SCORES["cer"]), prompts)
    found["cer_ci95"] = [own.low, own.high]
    melody = [matrix(side, "f0_spread.semitones").mean() for side in (stage, start)]
    found["f0_spread_ratio"] = float(melody[0] / melody[1])
    found["ended"] = float(np.mean([result.values("ended") for result in stage]))
    rate = wer_interval(wins(stage, start), prompts)
    found |= {"win_rate": rate.point, "win_rate_ci95": [rate.low, rate.high]}
    said = [utterance for result in stage for utterance in result.said.values()]
    for name, files in (("seconds", [u.wav for u in said]), ("teacher_seconds", [u.reference for u in said])):
        lengths = [sf.info(file).duration for file in files if file is not None]
        found[f"{name}_mean_std"] = [float(np.mean(lengths)), float(np.std(lengths))]
    return found


def table(figures: Mapping[str, Mapping[str, Any]]) -> Table:
    shown = Table(title="Held-out speech after each stage")
    names = [name for name in next(iter(figures.values())) if not name.endswith("std")]
    for heading in ("stage", *names):
        shown.add_column(heading, justify="left" if heading == "stage" else "right")
    for stage, found in figures.items():
        shown.add_row(stage, *(_number(found[name]) for name in names))
    return shown


def _number(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(f'{one:.3f}' for one in value)}]"
    return f"{value:.3f}" if isfinite(value) else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, next to no training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scratch", type=Path, default=Path("runs/benchmark_tts"))
    options = parser.parse_args()
    keys = QUICK if options.quick else []
    runs = [run_of_seed(seed, options.scratch.resolve(), keys) for seed in range(1 if options.quick else options.seeds)]
    start = [run[START] for run in runs]
    figures = {stage: figures_of([run[stage] for run in runs], start) for stage in STAGES}
    Console(width=200).print(table(figures))
    print(write_results("tts", figures, options.quick))


if __name__ == "__main__":
    main()
