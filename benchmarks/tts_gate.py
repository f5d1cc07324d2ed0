"""What a gate on the words is for: the same reward for a lively melody, learnt with and without it.

Two runs of GRPO from one supervised policy (recipes/tts/sft_global.yaml), on the spread of F0: one pays it whatever is
said, one only where the phonemes are right. Both are watched by the phoneme error; the monitor stops the run in which
speech falls apart.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from line_chart import line_chart
from results import ROOT, write_results

LIVELY = "{fn: rewards.tts:f0_spread, name: melody, part: semitones, shape: 'clip(x / 8, 0, 1)', timeout: 120"
SAID = "{fn: rewards.tts:phonemes, name: said, part: per, weight: 0, timeout: 120}"
GATE = ", gate: {if: said.per < 0.3, else: 0}"
MONITOR = "[{metric: reward/said.per, above: 1.4, baseline: 5, for_steps: 3}]"


def run(name: str, checkpoint: Path, gate: str, steps: int, scratch: Path, keys: list[str]) -> dict[str, Any]:
    """What a run came to; a monitor that stops it is a result and no failure."""
    command = [
        *(sys.executable, "-m", "rlhf_platform.cli.main", "run", str(ROOT / "recipes" / "tts" / "grpo.yaml")),
        *(f"name={name}", f"backbone.path={checkpoint}", "sft.steps=0", f"steps={steps}", "tracking.wandb=off"),
        *(f"runs_dir={scratch / 'runs'}", f"cache_dir={scratch / 'cache'}"),
        *(f"rewards=[{LIVELY}{gate}}}, {SAID}]", f"monitors={MONITOR}", "scoring.normalize=none"),
        "speech.instructions=global",
        *("learner.learning_rate=5e-4", "learner.schedule=constant"),
        *keys,
    ]
    subprocess.run(command, cwd=ROOT, check=False)
    folder = max((scratch / "runs").glob(f"{name}*"), key=lambda path: path.stat().st_mtime)
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    status = json.loads((folder / "status.json").read_text())
    return {
        "stopped_by_monitor": status["state"] != "finished" and "monitors[0]" in str(status.get("error")),
        "steps": len(metrics),
        "said_per": [step["reward/said.per"] for step in metrics],
        "melody_semitones": [step["reward/melody.semitones"] for step in metrics],
    }


def supervised(scratch: Path, keys: list[str]) -> Path:
    """The checkpoint of recipes/tts/sft_global.yaml, made once."""
    folder = scratch / "runs" / "sft"
    if not (folder / "results.json").is_file():
        command = [sys.executable, "-m", "rlhf_platform.cli.main", "run", str(ROOT / "recipes/tts/sft_global.yaml")]
        places = ["name=sft", f"runs_dir={scratch / 'runs'}", f"cache_dir={scratch / 'cache'}", "tracking.wandb=off"]
        subprocess.run([*command, *places, *keys], cwd=ROOT, check=True)
    return folder / "checkpoint"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three steps each")
    parser.add_argument("--checkpoint", type=Path, help="a policy to start from; by default it is trained first")
    parser.add_argument("--scratch", type=Path, default=Path("runs/benchmark_tts_gate"))
    options = parser.parse_args()
    steps, scratch = 3 if options.quick else 40, options.scratch.resolve()
    keys = ["evaluation.max_clips=4"] if options.quick else ["evaluation.max_clips=24"]
    checkpoint = options.checkpoint or supervised(scratch, ["sft.steps=20", *keys] if options.quick else keys)
    found = {
        name: run(name, checkpoint.resolve(), gate, steps, scratch, keys)
        for name, gate in (("ungated", ""), ("gated", GATE))
    }
    for name, each in found.items():
        print(
            name, {key: value if not isinstance(value, list) else [value[0], value[-1]] for key, value in each.items()}
        )
    path = write_results("tts_gate", found, options.quick)
    lines = {name: each["said_per"] for name, each in found.items()}
    chart = line_chart(lines, "A reward for lively melody, with and without a gate", "RL step", "phoneme error")
    path.with_suffix(".svg").write_text(chart)
    print(path)


if __name__ == "__main__":
    main()
