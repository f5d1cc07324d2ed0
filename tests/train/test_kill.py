"""Law 7: a run that is killed at any moment and goes on is the run that was never killed.

The loop, the run's folder, its checkpoints and `resume` are the real ones; the actors are fakes, in this process, so
that hundreds of moments can be tried. tests/e2e/test_resume.py kills a run with the real ones.
"""

import json
import os
import random
import signal
import sys
from collections.abc import Callable
from io import StringIO
from itertools import count
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from rich.console import Console

from rlhf_platform.data.sampler import PromptSampler
from rlhf_platform.errors import MonitorError, RunError
from rlhf_platform.evaluation.report import evaluate
from rlhf_platform.recipe.load import LoadedRecipe, load_recipe
from rlhf_platform.tracking.checkpoints import Checkpoint, Checkpoints
from rlhf_platform.tracking.progress import Display
from rlhf_platform.tracking.run_dir import RunDir
from rlhf_platform.tracking.wandb_log import WandbLog
from rlhf_platform.train.checkpointing import restore
from rlhf_platform.train.rehearsing import Rehearsing
from rlhf_platform.train.resume import reopen
from rlhf_platform.train.run import RunContext, train
from rlhf_platform.train.sync import sync
from rlhf_platform.train.team import Team
from rlhf_platform.types import Prompt
from tests.train.fake_team import FakeTeam

RECIPE = """\
name: a
steps: 11
data: {demo: digits}
algorithm: {type: grpo, group_size: 2}
rollout: {prompts_per_step: 3}
rewards: [{fn: rewards.asr:wer_reward, weight: 2, schedule: "linear(step, 0, 4)"}]
evaluation: {every: 4}
checkpoint: {every: 2, keep_last: 2, keep_best: 1}
tracking: {wandb: 'off'}
"""
PROMPTS = [Prompt(f"p{i}", "", "yes", "en") for i in range(7)]
BEFORE = evaluate("before RL", PROMPTS[:2], ["no", "no"])
"""A WER of 1."""
KILLS = 28
"""The first four fall before the first checkpoint, or about there."""


def carry_out(loaded: LoadedRecipe, folder: RunDir, start: Checkpoint | None) -> None:
    """What `rlhf_platform.train.run.carry_out` does, without Ray, data and models."""
    random.seed(1)
    np.random.seed(1)
    team = cast(Team, FakeTeam())
    sampler = PromptSampler(PROMPTS, loaded.recipe.rollout.prompts_per_step, loaded.recipe.seed)
    if start:
        restore(start, team, sampler, drafts=False)
    done = start.step if start else 0
    sync(team.learners, team.rollouts, done, PROMPTS[:1], "float32")
    wandb = WandbLog(loaded.recipe.tracking, "a", folder.path, {}, "id")
    run = RunContext(loaded, folder, Display(Console(file=StringIO())), wandb, Checkpoints(folder.path))
    rehearsing = Rehearsing(loaded.recipe, PROMPTS, folder.history())
    train(run, team, sampler, PROMPTS[:2], PROMPTS[:1], done, {}, BEFORE, rehearsing)


def start(where: Path) -> None:
    loaded = load_recipe(where / "r.yaml")
    folder = RunDir.create(where, "a", loaded.recipe.steps)
    folder.write("recipe.yaml", loaded.yaml)
    folder.status()
    carry_out(loaded, folder, None)


def go_on(where: Path) -> None:
    carry_out(*reopen(where / "a", where, load_recipe))


def in_child(work: Callable[[], None], kill_at: int = -1) -> int:
    """Run `work` in a process of its own, killed at Python's call number `kill_at`; returns how many there were."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        calls = count()

        def profile(*_: Any) -> None:
            if next(calls) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(profile)
        try:
            work()
        finally:
            sys.setprofile(None)
            os.write(writer, str(next(calls)).encode())
            os._exit(0 if sys.exc_info()[0] is None else 1)
    os.close(writer)
    with os.fdopen(reader) as answer:
        said = answer.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return kill_at
    assert os.waitstatus_to_exitcode(status) == 0
    return int(said)


def rows(where: Path, name: str) -> list[dict[str, Any]]:
    """A JSONL file of the run, without what a clock wrote."""
    lines = [json.loads(line) for line in (where / "a" / name).read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "time" and not k.startswith("seconds")} for line in lines]


def make(where: Path) -> Path:
    where.mkdir()
    (where / "r.yaml").write_text(RECIPE)
    return where


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    where = make(tmp_path_factory.mktemp("runs") / "undisturbed")
    return where, in_child(lambda: start(where))


def test_two_undisturbed_runs_are_the_same(undisturbed: tuple[Path, int], tmp_path: Path) -> None:
    again = make(tmp_path / "again")
    in_child(lambda: start(again))
    for name in ("metrics.jsonl", "prompts.jsonl"):
        assert rows(again, name) == rows(undisturbed[0], name)
    drawn = [prompt for row in rows(again, "prompts.jsonl") for prompt in row["prompts"]]
    assert len(drawn) == 33
    weights = [row["reward_weight/wer_reward"] for row in rows(again, "metrics.jsonl")]
    assert weights == [0.5, 1.0, 1.5, *[2.0] * 8]
    assert [sorted(drawn[i : i + 7]) for i in range(0, 28, 7)] == [[p.id for p in PROMPTS]] * 4


@pytest.mark.parametrize("seed", range(KILLS))
def test_a_run_that_is_killed_and_goes_on_draws_each_prompt_once_and_ends_the_same(
    seed: int, undisturbed: tuple[Path, int], tmp_path: Path
) -> None:
    """Killed up to three times: in a step, in an append, in a rename, while a checkpoint is written or removed."""
    whole, calls = undisturbed
    generator = random.Random(seed)
    where = make(tmp_path / "killed")
    first = range(calls // 5) if seed < 4 else range(calls // 5, calls)
    in_child(lambda: start(where), kill_at=generator.choice(first))
    kept = Checkpoints(where / "a")
    if kept.newest_sound()[0] is None:
        with pytest.raises(RunError, match=r"start anew: rlhf run|no run, it has no status.json"):
            reopen(where / "a", where, load_recipe)
        return
    for _ in range(generator.randrange(3)):
        in_child(lambda: go_on(where), kill_at=generator.randrange(calls))
    in_child(lambda: go_on(where))
    for name in ("metrics.jsonl", "prompts.jsonl"):
        assert rows(where, name) == rows(whole, name)
    assert [c.step for c in kept.complete()] == [c.step for c in Checkpoints(whole / "a").complete()]
    newest, damaged = kept.newest_sound()
    assert newest is not None
    assert (newest.step, damaged) == (11, [])
    assert (newest.policy / "model.txt").read_text() == (
        whole / "a/checkpoints/step-00011/policy/model.txt"
    ).read_text()


def test_the_best_by_held_out_wer_is_kept_also_when_a_monitor_stops_the_run_between_evaluations(tmp_path: Path) -> None:
    where = make(tmp_path / "best")
    changed = RECIPE.replace("every: 4", "every: 2").replace("keep_best: 1", "keep_best: 1, best_by: heldout_wer")
    (where / "r.yaml").write_text(changed + "monitors: [{metric: weight_version, above: 4}]\n")
    in_child(lambda: stopped(where))
    kept = Checkpoints(where / "a").complete()
    assert kept[-1].step == 5
    assert kept[-1].score == float("-inf"), "nothing was measured there"
    (where / "a" / "recipe.yaml").write_text((where / "a" / "recipe.yaml").read_text().replace("above: 4", "above: 40"))
    in_child(lambda: go_on(where))
    last = Checkpoints(where / "a").complete()[-1]
    assert (last.step, last.score) == (11, -rows(where, "metrics.jsonl")[-1]["heldout_wer"])


def stopped(where: Path) -> None:
    with pytest.raises(MonitorError):
        start(where)
