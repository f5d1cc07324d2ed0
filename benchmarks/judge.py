"""A judge before and after it was trained by the platform: SFT on labelled replies, then RL with verdicts that can be
checked.

Whole runs of recipes/judge. Each judge is served by vLLM and asked about the held-out pairs in both orders, as a run
asks it. The start is asked with the prompt that suits it best, examples and all, and with the short one too. Intervals
are of a bootstrap over pairs; the difference is paired.
"""

import argparse
import asyncio
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results import ROOT, write_results
from rich.console import Console
from rich.table import Table

from rewards.judge.server import JudgeServer
from rewards.judge.settings import JudgeSettings
from rewards.judge_training import PAIRWISE_PROMPT
from rlhf_platform.data.judge_tasks import demo_pairs
from rlhf_platform.data.labelled import Labelled
from rlhf_platform.evaluation.bootstrap import Interval
from rlhf_platform.evaluation.calibration import Calibration, calibration, drift
from rlhf_platform.evaluation.injection import Injection
from rlhf_platform.evaluation.rulings import TIE, Recording
from rlhf_platform.train.judging.calibrating import attack, record, spread

UNTRAINED_PROMPT = "pairwise-1"
QUICK = ["sft.steps=2", "evaluation.max_clips=8"]


@dataclass(frozen=True)
class Measured:
    """What a judge makes of the held-out pairs."""

    recording: Recording
    figures: Calibration
    injection: Injection


def trained(recipe: str, name: str, scratch: Path, keys: Sequence[str]) -> Path:
    """The checkpoint of a whole run of recipes/judge."""
    places = [f"name={name}", f"runs_dir={scratch / 'runs'}", f"cache_dir={scratch / 'cache'}", "tracking.wandb=off"]
    path = str(ROOT / "recipes" / "judge" / recipe)
    subprocess.run([sys.executable, "-m", "rlhf_platform.cli.main", "run", path, *places, *keys], cwd=ROOT, check=True)
    return max((scratch / "runs").glob(f"{name}*"), key=lambda folder: folder.stat().st_mtime) / "checkpoint"


def measure(model: str, prompt: str, pairs: Sequence[Labelled], attacked: int, scratch: Path) -> Measured:
    """Serve a judge and ask it about the pairs, and about `attacked` of them with attacks in the worse reply."""
    with JudgeServer(model, scratch / "judges", threads=2) as server:
        settings = JudgeSettings(judge=server.url, prompt=prompt, timeout=300.0)
        recording = asyncio.run(record(settings, pairs))
        # Remembered answers would be counted as asked for nothing.
        worse = spread([pair for pair in pairs if pair.better != TIE], attacked)
        return Measured(recording, calibration(recording), asyncio.run(attack(settings, worse)))


def figures_of(judges: dict[str, Measured]) -> dict[str, Any]:
    start, after = judges["start"], judges["grpo"]
    change = drift(start.recording.rulings, after.recording.rulings).accuracy
    plain = {
        name: {
            "accuracy": _bounds(found.figures.accuracy),
            "criteria": {name: _bounds(interval) for name, (_, interval) in found.figures.criteria.items()},
            "order_bias": _bounds(found.figures.order_bias),
            "order_agreement": found.figures.order_agreement,
            "length_bias": _bounds(found.figures.length_bias),
            "injection_level": _bounds(found.injection.attack.level),
            "injection_control": _bounds(found.injection.control.level),
            "injection_win_rate": _bounds(found.injection.attack.win_rate),
            "injection_bound": found.injection.bound,
        }
        for name, found in judges.items()
    }
    assert start.figures.accuracy
    assert after.figures.accuracy
    assert after.figures.order_bias
    return {
        "accuracy_before": start.figures.accuracy.point,
        "accuracy_after": after.figures.accuracy.point,
        "accuracy_ci95": [after.figures.accuracy.low, after.figures.accuracy.high],
        "accuracy_difference_ci95": _bounds(change),
        "order_bias": after.figures.order_bias.point,
        "injection_gain": after.injection.attack.win_rate.point,
        "pairs": after.figures.pairs,
        "judges": plain,
    }


def _bounds(interval: Interval | None) -> list[float] | None:
    return [interval.point, interval.low, interval.high] if interval else None


def table(judges: dict[str, Measured]) -> Table:
    shown = Table(title="Held-out labelled pairs")
    names = ("judge", "accuracy", "order bias", "orders agree", "attacks gain (win rate)", "verdicts/s")
    for name in names:
        shown.add_column(name, justify="left" if name == "judge" else "right")
    for name, found in judges.items():
        figures = found.figures
        gain = found.injection.attack.win_rate
        shown.add_row(
            name,
            _shown(figures.accuracy),
            _shown(figures.order_bias),
            "-" if figures.order_agreement is None else f"{figures.order_agreement:.3f}",
            _shown(gain),
            f"{figures.verdicts_per_s:.1f}",
        )
    return shown


def _shown(interval: Interval | None) -> str:
    return f"{interval.point:.3f} [{interval.low:.3f}, {interval.high:.3f}]" if interval else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="next to no training, few pairs")
    parser.add_argument("--scratch", type=Path, default=Path("runs/benchmark_judge"))
    options = parser.parse_args()
    scratch, keys = options.scratch.resolve(), QUICK if options.quick else []
    pairs = spread([pair for pair in demo_pairs() if pair.split == "heldout"], 12 if options.quick else None)
    attacked = 2 if options.quick else 20
    sft = trained("sft.yaml", "judge-sft", scratch, keys)
    onward = [f"backbone.path={sft}", "sft.steps=0", *(["steps=1", "evaluation.max_clips=8"] if options.quick else [])]
    grpo = trained("grpo.yaml", "judge-grpo", scratch, onward)
    asked = {
        "start": ("smollm2", UNTRAINED_PROMPT),
        "start, short prompt": ("smollm2", PAIRWISE_PROMPT),
        "sft": (str(sft), PAIRWISE_PROMPT),
        "grpo": (str(grpo), PAIRWISE_PROMPT),
    }
    judges = {name: measure(*judge, pairs, attacked, scratch) for name, judge in asked.items()}
    Console(width=160).print(table(judges))
    print(write_results("judge", figures_of(judges), options.quick))


if __name__ == "__main__":
    main()
