"""A reward that can be gamed, in real runs: the monitor stops the one that games it, and not the one behind a gate."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

QUICKSTART = Path(__file__).parents[2] / "recipes" / "asr" / "quickstart.yaml"
RECIPE = f"""\
extends: {QUICKSTART}
steps: 40
sft: {{steps: 300}}
rollout: {{prompts_per_step: 8}}
learner: {{schedule: constant}}
evaluation: {{max_clips: 24}}
tracking: {{wandb: 'off'}}
rewards:
  - fn: rewards.asr:wer_reward
  - fn: hackable.py:short
    weight: 3
    GATE
monitors:
  - {{metric: completion_tokens, below: 0.5, baseline: 3, for_steps: 2}}
"""
REWARD = """
def short(sample, limit=16):
    return 1.0 - len(sample.tokens) / limit
"""
GATE = "gate: {if: wer_reward > 0.99, else: 0}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hack")
    (folder / "hackable.py").write_text(REWARD)
    (folder / "bare.yaml").write_text(RECIPE.replace("GATE", "# no gate"))
    (folder / "gated.yaml").write_text(RECIPE.replace("GATE", GATE))
    return folder


def run(place: Path, name: str) -> tuple[subprocess.CompletedProcess[str], list[dict[str, Any]], dict[str, Any]]:
    command = [sys.executable, "-m", "rlhf_platform.cli.main", "run", f"{name}.yaml", f"name={name}"]
    ended = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=800, check=False)
    folder = place / "runs" / name
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return ended, metrics, json.loads((folder / "status.json").read_text())


def test_the_run_that_learns_to_say_less_is_stopped_and_told_why(place: Path) -> None:
    ended, metrics, status = run(place, "bare")
    assert (ended.returncode, status["state"]) == (2, "failed"), ended.stdout + ended.stderr
    assert len(metrics) < 40
    assert "monitor: completion_tokens is" in ended.stderr
    assert "gate it by WER" in ended.stderr
    assert metrics[-1]["reward"] > metrics[0]["reward"], "by its own reward it did well"
    assert metrics[-1]["deletion_rate"] > metrics[0]["deletion_rate"]
    assert (place / "runs" / "bare" / "checkpoints" / f"step-{len(metrics):05d}").is_dir(), "it can go on"


def test_the_same_reward_behind_a_gate_runs_to_its_end(place: Path) -> None:
    ended, metrics, status = run(place, "gated")
    assert (ended.returncode, status["state"]) == (0, "finished"), ended.stdout + ended.stderr
    assert len(metrics) == 40
    assert all({"reward/short", "reward_shaped/short"} <= step.keys() for step in metrics)
