"""Values that cannot be run, each with its words."""

from pathlib import Path

import pytest

from rlhf_platform.recipe.load import LoadedRecipe, load_recipe
from rlhf_platform.recipe.validate import describe, problems

VALID = "name: a\ndata: {demo: digits}\nrewards: [{fn: rewards.asr:wer_reward}]\n"


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def load(*overrides: str) -> LoadedRecipe:
    Path("r.yaml").write_text(VALID)
    return load_recipe("r.yaml", overrides)


def test_the_defaults_are_valid() -> None:
    assert problems(load()) == []
    assert describe(load("steps=3", "sft.steps=2")) == (
        "a: 2 steps of warm start, then 3 steps of grpo on 128 samples (16 prompts x 8), reward 1 x wer_reward"
    )


def test_a_check_waits_until_the_keys_it_reads_are_right() -> None:
    """Three prompts do not divide over two workers, but nobody wrote a two."""
    lines = problems(load("rollout.prompts_per_step=3", "rollout.workers=0", "rollout.top_p=0.5"))
    assert [line.split(" ")[0] for line in lines] == ["rollout.workers"]


def test_all_problems_are_told_at_once() -> None:
    lines = problems(load("learner.zero_stage=9", "data.demo=null", "rewards=[]", "rollout.top_p=0.5"))
    assert [line.split(" ")[0] for line in lines] == ["learner.zero_stage", "data.manifest", "rewards", "rollout.top_p"]


def test_cores_are_not_counted_on_a_running_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems(load("learner.workers=4", "cluster.address=auto")) == []
    assert problems(load("learner.workers=4", "cluster.address=ray://head:10001")) == []
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert problems(load("learner.workers=4")) == []


def test_sizes_of_the_tiny_backbone_are_not_checked_when_a_checkpoint_is_named() -> None:
    assert problems(load("backbone.window=40", "backbone.path=owner/model")) == []
