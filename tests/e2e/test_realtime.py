"""The Realtime branch as a user runs it: SFT, a served judge held to labels, PPO over sessions, a report to hear."""

import json
from pathlib import Path

import pytest
import soundfile as sf

from tests.e2e.test_resume import finish

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]

ROOT = Path(__file__).parents[2]
RECIPE = str(ROOT / "recipes" / "realtime" / "quickstart.yaml")
KEYS = [
    "tracking.wandb=off",
    "sft.steps=2",
    "steps=3",
    "rollout.prompts_per_step=8",
    "dialogue.session_weight=0.5",
    "algorithm.critic_warmup=1",
    "evaluation.max_clips=8",
    "evaluation.every=1",
    "judges[0].calibration.limit=10",
    "judges[0].calibration.minimum=0.01",
    "rehearsal.metric=heldout_quality",
    "rehearsal.tolerance=0",
    "rehearsal.samples=4",
]


def test_the_quickstart_runs_through_and_ends_with_a_session_to_hear(tmp_path: Path) -> None:
    said = finish(tmp_path, "run", RECIPE, "name=all", *KEYS)
    assert "judge 'small' on 10 labelled pairs" in said
    folder = tmp_path / "runs" / "all"
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(steps) == 3
    for step in steps:
        assert step["logprob_diff_max"] < 1e-4
        assert step["reward_failed"] == 0
        assert 0 <= step["reward/preferred.preference"] <= 1
        assert step["samples"] >= 16
        assert 0 <= step["reward_overlap"] <= 1
    assert any(step["later_turns"] > 0 for step in steps), "some sessions are played on"
    assert all((step["rehearsal_weight"] > 0) == ("rehearsal_loss" in step) for step in steps[1:])
    results = json.loads((folder / "results.json").read_text())
    low, high = results["win_rate_interval"]
    assert 0 <= low <= results["win_rate"] <= high <= 1
    assert {"facts.kept", "rubric.rubric", "rubric.safety"} < set(results["heldout_after"])
    assert set(results["win_rates"]) == {"quality", "rubric.rubric"}
    assert "- **assistant**" in (folder / "session.md").read_text()
    clips = list((folder / "session").iterdir())
    assert clips
    assert all(sf.info(clip).samplerate == 16_000 for clip in clips)


def test_a_judge_that_does_no_better_than_asked_starts_no_run(tmp_path: Path) -> None:
    untrained = ("judges[0].lora=''", "judges[0].calibration.minimum=1")
    said = finish(tmp_path, "run", RECIPE, "name=all", *KEYS, *untrained, code=2)
    assert "judges[0].calibration.minimum is 1: judge 'small'" in said
    assert not (tmp_path / "runs" / "all" / "metrics.jsonl").exists()
