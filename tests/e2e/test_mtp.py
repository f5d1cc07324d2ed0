"""Multi-token prediction as a user runs it: heads fitted, drafting in rollouts, fitted anew, in every checkpoint."""

import time
from pathlib import Path

import pytest

from tests.e2e.test_resume import finish, kill_after, rlhf, rows

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

RECIPE = str(Path(__file__).parents[2] / "recipes" / "asr" / "mtp.yaml")
KEYS = [
    "tracking.wandb=off",
    "sft.steps=100",
    "mtp.steps=100",
    "mtp.joint_steps=5",
    "mtp.warmup_steps=5",
    "mtp.refit_below=1.0",
    "mtp.refit_steps=3",
    "learner.learning_rate=3e-3",  # shakes the policy, so that guesses fail
    "rollout.prompts_per_step=4",
    "evaluation.max_clips=8",
    "checkpoint.every=1",
    "steps=6",
]


def test_heads_draft_in_a_run_are_fitted_anew_and_go_on_with_it_after_a_kill(tmp_path: Path) -> None:
    said = finish(tmp_path, "run", RECIPE, "name=whole", *KEYS)
    assert "heads: kept in" in said
    assert "guesses accepted, by position:" in said
    whole, killed = tmp_path / "runs" / "whole", tmp_path / "runs" / "killed"
    steps = rows(whole, "metrics.jsonl")
    assert all(1 <= step["mtp_accepted"] <= 6 for step in steps)
    assert all(step["logprob_diff_max"] < 1e-4 for step in steps)
    assert sum(step["mtp_refit"] for step in steps) >= 1
    newest = sorted((whole / "checkpoints").iterdir())[-1]
    for folder in (whole / "checkpoint", newest / "policy"):
        assert (folder / "mtp" / "model.safetensors").is_file()

    # Heads that were fitted anew before the kill guess as they did.
    kill_after(rlhf(tmp_path, "run", RECIPE, "name=killed", *KEYS), "RL step 5/6")
    time.sleep(1)
    finish(tmp_path, "resume", "killed")
    assert rows(killed, "metrics.jsonl") == steps

    said = finish(tmp_path, "eval", RECIPE, "--checkpoint", str(newest), *KEYS)
    assert "guesses accepted, by position:" in said
