"""The TTS branch as a user runs it: the quickstart, small, then again, an evaluation and an arena."""

import json
from pathlib import Path

import pytest
import soundfile as sf

from tests.e2e.test_resume import finish

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]

ROOT = Path(__file__).parents[2]
RECIPE = str(ROOT / "recipes" / "tts" / "quickstart.yaml")
KEYS = [
    "tracking.wandb=off",
    "evaluation.max_clips=4",
    "sft_global:sft.steps=4",
    "sft_inline:sft.steps=4",
    "pairs:algorithm.prompts=16",
    "pairs:algorithm.margin=0",
    "reward_model:steps=2",
    "reward_model:algorithm.batch_size=8",
    "dpo:steps=2",
    "dpo:algorithm.batch_size=8",
    "ppo:steps=2",
    "ppo:rollout.prompts_per_step=4",
    "ppo:algorithm.group_size=4",
    "ppo:algorithm.critic_warmup=1",
]


def test_the_quickstart_runs_through_once_and_ends_with_speech(tmp_path: Path) -> None:
    said = finish(tmp_path, "run", RECIPE, "name=all", *KEYS)
    assert "stage 6/6, ppo" in said
    assert "all: held-out speech after each stage" in said
    assert said.count("held-out evaluation before RL: it is there already") == 2, "DPO's and PPO's was handed on"
    folder = tmp_path / "runs" / "all"
    (ppo,) = folder.glob("ppo-*")
    steps = [json.loads(line) for line in (ppo / "metrics.jsonl").read_text().splitlines()]
    for step in steps:
        assert step["logprob_diff_max"] < 1e-4
        assert step["codec_decoded"] + step["codec_remembered"] == step["samples"] == 16
        assert step["seconds/codec"] > 0
        assert step["codebook_logprob/0"] < 0
    rows = [json.loads(line) for line in (ppo / "speech_after_RL.jsonl").read_text().splitlines()]
    assert len(rows) == 4
    for row in rows:
        assert row["wav"] is None or sf.info(ppo / row["wav"]).samplerate == 16_000
    (pairs,) = folder.glob("pairs-*")
    assert (pairs / "pairs.jsonl").read_text().count('"rollout"') > 0

    again = finish(tmp_path, "run", RECIPE, "name=all", *KEYS)
    assert again.count("skipped, ") >= 6

    (sft,) = folder.glob("sft_inline-*")
    compared = finish(
        tmp_path,
        "arena",
        f"{sft}:before_RL",
        f"{ppo}:after_RL",
        "--score",
        "quality",
        "--export",
        str(tmp_path / "blind"),
    )
    assert "win rate" in compared
    assert len(list((tmp_path / "blind" / "raters").rglob("*.wav"))) == 2 * len([row for row in rows if row["wav"]])

    recipe = str(ROOT / "recipes" / "tts" / "sft_inline.yaml")
    evaluated = finish(
        tmp_path, "eval", recipe, "--checkpoint", str(ppo), "tracking.wandb=off", "evaluation.max_clips=4"
    )
    assert "cer.cer" in evaluated
