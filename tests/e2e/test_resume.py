"""Law 7 with the real parts: two runs are the same, and one that is killed and goes on is the same once more."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rlhf_platform.recipe.metrics import METRICS, PER_TERM

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

QUICKSTART = Path(__file__).parents[2] / "recipes" / "asr" / "quickstart.yaml"
KEYS = (
    "sft.steps=20",
    "sft.warmup_steps=1",
    "steps=8",
    "rollout.prompts_per_step=4",
    "evaluation.max_clips=8",
    "evaluation.every=4",
    "checkpoint.every=2",
    "tracking.wandb=off",
)
RECIPE = f"""\
extends: {QUICKSTART}
rewards:
  - fn: rewards.asr:wer_reward
  - fn: my_rewards.py:Novelty
    weight: 0.2
"""
REWARD = '''
class Novelty:
    """Less for what it has heard often: it remembers."""

    def __init__(self):
        self.heard = {}

    def __call__(self, sample):
        self.heard[sample.text] = self.heard.get(sample.text, 0) + 1
        return 1.0 / self.heard[sample.text]

    def state_dict(self):
        return {"heard": self.heard}

    def load_state_dict(self, state):
        self.heard = state["heard"]
'''


def rlhf(place: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "rlhf_platform.cli.main", *arguments]
    return subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(place: Path, *arguments: str, code: int = 0) -> str:
    process = rlhf(place, *arguments)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == code, said
    return said


def kill_after(process: subprocess.Popen[str], words: str) -> None:
    """SIGKILL to the driver as soon as it has said `words`; Ray's processes end with it."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if words in line:
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=60)
            return
    pytest.fail(f"never said {words!r}: {said}")


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    """A JSONL file of a run, without what a clock wrote."""
    lines = [json.loads(line) for line in (folder / name).read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "time" and not k.startswith("seconds")} for line in lines]


def test_a_run_is_the_same_twice_and_once_more_through_two_kills(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE)
    (tmp_path / "my_rewards.py").write_text(REWARD)
    finish(tmp_path, "run", "r.yaml", "name=first", *KEYS)
    finish(tmp_path, "run", "r.yaml", "name=second", *KEYS)
    kill_after(rlhf(tmp_path, "run", "r.yaml", "name=killed", *KEYS), "RL step 3/8")
    (tmp_path / "my_rewards.py").unlink()  # the run's folder keeps what it began with
    kill_after(rlhf(tmp_path, "resume", "killed"), "RL step 5/8")
    time.sleep(1)
    said = finish(tmp_path, "resume", "killed", "cluster.step_timeout=500")
    assert "goes on after step 4" in said

    first, second, killed = (tmp_path / "runs" / name for name in ("first", "second", "killed"))
    for name in ("metrics.jsonl", "prompts.jsonl"):
        assert rows(second, name) == rows(first, name)
        assert rows(killed, name) == rows(first, name)
    assert [row["step"] for row in rows(killed, "metrics.jsonl")] == list(range(1, 9))
    weights = [(run / "checkpoint" / "model.safetensors").read_bytes() for run in (first, second, killed)]
    assert weights[0] == weights[1] == weights[2]

    done = rlhf(tmp_path, "resume", "killed")
    said, _ = done.communicate(timeout=60)
    assert (done.returncode, said.count("\n")) == (2, 1)
    assert "it has finished" in said

    newest = sorted((killed / "checkpoints").iterdir())[-1]
    said = finish(
        tmp_path, "eval", "r.yaml", "--checkpoint", str(newest), "rewards=[{fn: rewards.asr:wer_reward}]", *KEYS
    )
    results = json.loads((tmp_path / "runs/asr-quickstart-eval/results.json").read_text())
    after = json.loads((killed / "results.json").read_text())
    assert results["wer"] == after["wer_after"]
    assert results["clips"] == 8


def test_a_dry_run_goes_through_everything_once(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE)
    (tmp_path / "my_rewards.py").write_text(REWARD)
    finish(tmp_path, "run", "r.yaml", "sft.warmup_steps=1", "--dry-run")
    folder = tmp_path / "runs" / "asr-quickstart-dry-run"
    (step,) = rows(folder, "prompts.jsonl")
    assert len(step["prompts"]) == 2
    (metrics,) = rows(folder, "metrics.jsonl")
    assert {"reward/wer_reward", "reward/Novelty", "kl", "probe_diff_max"} <= metrics.keys()
    assert unknown_metrics(metrics) == set()
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"
    assert (folder / "checkpoint" / "config.json").is_file()


def unknown_metrics(metrics: dict[str, Any]) -> set[str]:
    """What a step logs and no monitor may name."""
    return {name for name in metrics if name not in (*METRICS, "step") and not name.startswith(PER_TERM)}
