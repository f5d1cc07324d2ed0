"""Values that cannot be run, each with its words."""

# ruff: noqa: E501 - messages are kept on one line, as they are printed

from pathlib import Path

import pytest

from rlhf_platform.errors import RecipeError
from rlhf_platform.recipe.load import LoadedRecipe, load_recipe
from rlhf_platform.recipe.validate import describe, problems, validate

VALID = "name: a\ndata: {demo: digits}\nrewards: [{fn: rewards.asr:wer_reward}]\n"


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def load(*overrides: str) -> LoadedRecipe:
    Path("r.yaml").write_text(VALID)
    return load_recipe("r.yaml", overrides)


def test_the_defaults_are_valid() -> None:
    validate(load())
    assert describe(load("steps=3", "sft.steps=2")) == (
        "a: 2 steps of warm start, then 3 steps of grpo on 128 samples (16 prompts x 8), reward 1 x wer_reward"
    )


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["learner.zero_stage=4"], "learner.zero_stage is 4: allowed 0 to 3"),
        (["sft.steps=-1"], "sft.steps is -1: allowed at least 0"),
        (["learner.learning_rate=0"], "learner.learning_rate is 0.0: allowed above 0 to 1"),
        (["learner.learning_rate=.nan"], "learner.learning_rate is nan: allowed above 0 to 1"),
        (["cluster.step_timeout=.inf"], "cluster.step_timeout is inf: allowed above 0"),
        (["tracking.wandb=onlin"], "tracking.wandb is onlin: allowed one of off, offline, online; did you mean online?"),
        (["branch=tts"], "branch is tts: allowed only asr"),
        (["rewards=[{fn: 'a:b', timeout: 0}]"], "rewards[0].timeout is 0.0: allowed above 0"),
        (["name=a/b"], "name is 'a/b': it names a folder; allowed letters, digits, then . _ - too"),
        (["algorithm.group_size=1"], "algorithm.group_size is 1: grpo compares samples of one prompt, allowed 2 to 1024; 8 is the default, 64 is published"),
        (["rollout.top_p=0.9"], "rollout.top_p is 0.9: only 1 is allowed, a cut tail is not the distribution that is learnt; lower rollout.temperature instead"),
        (["data.demo=null"], "data.manifest and data.demo are null: give one of them, for example data.demo=digits"),
        (["rewards=[]"], "rewards is empty: at least one is needed, for example rewards=[{fn: rewards.asr:wer_reward}]"),
        (["rewards=[{fn: 'a:b', weight: 0}]"], "rewards[].weight is 0 in every reward: nothing would be learnt; give one another weight"),
        (["rewards=[{fn: 'a:b'}, {fn: 'c:b'}]"], "rewards[].name is 'b' in 2 rewards: names must differ; set name in all but one"),
        (["rewards=[{fn: wer}]"], "rewards[0].fn is 'wer': expected package.module:name or file.py:name"),
        (["rollout.workers=3", "cluster.cpus=4"], "rollout.prompts_per_step is 16: not divisible over rollout.workers=3; allowed multiples of 3: 15 or 18"),
        (["learner.workers=3", "cluster.cpus=4"], "rollout.prompts_per_step is 16: x algorithm.group_size=8 makes 128 samples, not divisible over learner.workers=3 x algorithm.minibatches=1; allowed multiples of 3: 15 or 18"),
        (["rollout.prompts_per_step=1", "algorithm.group_size=6", "algorithm.minibatches=4"], "rollout.prompts_per_step is 1: x algorithm.group_size=6 makes 6 samples, not divisible over learner.workers=1 x algorithm.minibatches=4; allowed multiples of 2: 2"),
        (["learner.workers=2"], "cluster.cpus is 2: rollout keeps 1 x 1 cores and learner 2 x 1, together 3; raise it to 3, lower workers or cpus of either, or name a cluster.address"),
        (["cluster.address=here"], "cluster.address is 'here': allowed auto, host:port, ray://host:port, null (local)"),
        (["backbone.tiny.hidden_size=130"], "backbone.tiny.hidden_size is 130: not divisible by backbone.tiny.attention_heads=4; nearest: 132"),
        (["backbone.tiny.key_value_heads=3"], "backbone.tiny.key_value_heads is 3: does not divide backbone.tiny.attention_heads=4; allowed 1, 2, 4"),
        (["learner.lora.rank=513"], "learner.lora.rank is 513: allowed 0 to 512"),
        (["sft.lora.alpha=0", "sft.lora.rank=1"], "sft.lora.alpha is 0.0: allowed above 0 to 4096"),
        (["learner.lora.alpha=8"], "learner.lora.rank is 0: learner.lora.alpha=8.0 has no effect without LoRA; set the rank, for example to 16, or leave the other out"),
        (["sft.lora.targets=[q_proj]"], "sft.lora.rank is 0: sft.lora.targets=['q_proj'] has no effect without LoRA; set the rank, for example to 16, or leave the other out"),
        (["align.lora.rank=8"], "align.lora.rank is 8: this stage teaches the adaptor alone, allowed only 0; set sft.lora.rank for the stage after it"),
        (["learner.lora.rank=8", "learner.freeze_encoder=false"], "learner.freeze_encoder is false: with learner.lora.rank=8 LoRA alone learns; set it to true, or learner.lora.rank to 0"),
        (["align.steps=2", "align.cpus=3"], "align.cpus is 3: the warm start keeps 1 x 3 cores, cluster.cpus is 2; lower align.cpus or learner.workers, or raise cluster.cpus"),
        (["backbone.window=40"], "backbone.tiny.max_positions is 512: backbone.window=40 s is 520, rollout.max_new_tokens=32, the prompt 32, together 584; raise it to 584 or lower one of them"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_run_is_one_line(overrides: list[str], expected: str) -> None:
    assert problems(load(*overrides)) == [expected]


def test_a_missing_manifest_is_refused_with_the_nearest(tmp_path: Path) -> None:
    assert problems(load("data.demo=null", "data.manifest=train.jsonl")) == [
        f"data.manifest is '{tmp_path}/train.jsonl': no such file; a path is relative to the file that names it"
    ]
    Path("trains.jsonl").write_text("")
    assert problems(load("data.demo=null", "data.manifest=train.jsonl")) == [
        f"data.manifest is '{tmp_path}/train.jsonl': no such file; did you mean {tmp_path}/trains.jsonl?"
    ]
    assert problems(load("data.manifest=trains.jsonl")) == [
        f"data.demo is digits and data.manifest is '{tmp_path}/trains.jsonl': give one, set the other to null"
    ]


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(RecipeError) as raised:
        validate(load("learner.zero_stage=9", "data.demo=null", "rewards=[]", "rollout.top_p=0.5"))
    keys = [line.split(" ")[0] for line in str(raised.value).splitlines()]
    assert keys == ["learner.zero_stage", "data.manifest", "rewards", "rollout.top_p"]


def test_cores_are_not_counted_on_a_running_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems(load("learner.workers=4", "cluster.address=auto")) == []
    assert problems(load("learner.workers=4", "cluster.address=ray://head:10001")) == []
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert problems(load("learner.workers=4")) == []


def test_sizes_of_the_tiny_backbone_are_not_checked_when_a_checkpoint_is_named() -> None:
    assert problems(load("backbone.window=40", "backbone.path=owner/model")) == []
