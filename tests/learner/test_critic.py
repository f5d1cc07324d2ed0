"""PPO's critic in the real learner: what learns when, what it comes to know, whose memory it uses."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp

from rlhf_platform.learner.learner import Learner
from rlhf_platform.learner.process_group import Rendezvous, free_port
from rlhf_platform.recipe.algorithms import PPO
from rlhf_platform.recipe.schema import LearnerConfig, Recipe
from rlhf_platform.train.advantages import advantages_of
from rlhf_platform.types import Prompt, ScoredSample
from tests.learner.test_law5 import scored_for

WARMUP = 2
BASE = PPO(minibatches=2, critic_learning_rate=3e-3)
LEARNER = LearnerConfig(learning_rate=1e-2, schedule="linear")


def one_step(learner: Learner, algorithm: PPO, scored: list[ScoredSample]) -> dict[str, float]:
    """As the loop does."""
    return learner.train(advantages_of(scored, algorithm, learner.see([s.sample for s in scored])))


def copied(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def critic_of(learner: Learner) -> Any:
    assert learner._critic is not None
    return learner._critic._engine.module


def warmed_up(make: Any, scored: list[ScoredSample]) -> dict[str, Any]:
    """Two steps of the critic alone and one of both."""
    algorithm = replace(BASE, critic_warmup=WARMUP)
    learner: Learner = make(algorithm, 3)
    found: dict[str, Any] = {"policy": [copied(learner._policy)], "critic": [copied(critic_of(learner))]}
    found["metrics"] = []
    for _ in range(WARMUP + 1):
        found["metrics"].append(one_step(learner, algorithm, scored))
        found["policy"].append(copied(learner._policy))
        found["critic"].append(copied(critic_of(learner)))
    return found


def taught(make: Any, scored: list[ScoredSample], critic: str) -> list[float]:
    """The explained variance while the critic alone learns: with lambda 1 the returns are the rewards."""
    algorithm = replace(BASE, kl_coef=0.0, gae_lambda=1.0, value_clip=None, critic=critic, critic_warmup=100)
    learner: Learner = make(algorithm, 100)
    return [one_step(learner, algorithm, scored)["explained_variance"] for _ in range(12)]


def shared(make: Any, scored: list[ScoredSample], **keys: Any) -> dict[str, Any]:
    """Of a critic on a trunk: whether it looks through the reference's memory, and what a step moves."""
    algorithm = replace(BASE, critic="trunk", **keys)
    learner: Learner = make(algorithm, 2)
    critic, reference = critic_of(learner), learner._reference
    frozen = None if reference is None or reference._frozen is None else reference._frozen.model
    theirs = {p.data_ptr() for p in frozen.parameters()} if frozen is not None else set()
    before = copied(critic)
    one_step(learner, algorithm, scored)
    return {
        "shared": [p.data_ptr() in theirs for p in critic.model.parameters()],
        "policy": any(
            p.data_ptr() in {q.data_ptr() for q in learner._policy.parameters()} for p in critic.parameters()
        ),
        "moved": {name for name, p in critic.named_parameters() if not torch.equal(p, before[name])},
        "learns": {name for name, p in critic.named_parameters() if p.requires_grad},
    }


def _run(rank: int, port: int, model: Path, clips: list[Prompt], out: Path) -> None:
    torch.set_num_threads(1)
    scored = scored_for(clips)

    def make(algorithm: PPO, steps: int) -> Learner:
        recipe = Recipe(name="test", steps=steps, algorithm=algorithm, learner=LEARNER)
        return Learner(recipe, model, Rendezvous(rank, 1, "127.0.0.1", port, timeout=120))

    found = {
        "warmup": warmed_up(make, scored),
        "copy": taught(make, scored, "copy"),
        "trunk": taught(make, scored, "trunk"),
        "shared": shared(make, scored),
        "moving": shared(make, scored, reference_every=1),
        "alone": shared(make, scored, kl_coef=0.0),
    }
    torch.save(found, out)
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def found(tiny_checkpoint: Path, clips: list[Prompt], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("critic") / "out.pt"
    mp.spawn(_run, (free_port(), tiny_checkpoint, clips, out), nprocs=1, join=True)
    loaded: dict[str, Any] = torch.load(out)
    return loaded


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, tensor in left.items() if torch.equal(tensor, right[name])}


def test_while_the_critic_warms_up_no_bit_of_the_policy_moves(found: dict[str, Any]) -> None:
    start, *warming, after = found["warmup"]["policy"]
    assert all(same(start, step) == start.keys() for step in warming)
    assert same(start, after) < start.keys()
    critics = found["warmup"]["critic"]
    for before, later in pairwise(critics):
        assert {"head.weight", "head.bias"} <= before.keys() - same(before, later)
    # From the second step on, what carries the head learns with it.
    assert any("layers" in name for name in critics[1].keys() - same(critics[1], critics[2]))


def test_a_warm_up_has_metrics_but_no_gradient_and_the_schedule_begins_after_it(found: dict[str, Any]) -> None:
    *warming, after = found["warmup"]["metrics"]
    for metrics in warming:
        assert "grad_norm" not in metrics
        assert metrics["critic_grad_norm"] > 0
        assert metrics["kl"] == pytest.approx(0.0, abs=1e-9)
        assert metrics["learning_rate"] == 1e-2
    assert after["grad_norm"] > 0
    # The second of the two optimiser steps that are left: half way down.
    assert after["learning_rate"] == pytest.approx(1e-2 * 0.5)


@pytest.mark.parametrize("critic", ["copy", "trunk"])
def test_a_critic_comes_to_explain_the_returns_that_it_is_taught(critic: str, found: dict[str, Any]) -> None:
    """At its start it says 0 everywhere, and explains nothing."""
    variances = found[critic]
    assert variances[0] == pytest.approx(0.0, abs=1e-6)
    assert variances[-1] > max(0.1, variances[1])
    assert sum(later > before for before, later in pairwise(variances)) >= 8


def test_on_the_trunk_the_head_alone_learns_and_the_memory_is_the_reference_s(found: dict[str, Any]) -> None:
    shared = found["shared"]
    assert all(shared["shared"])
    assert not shared["policy"]
    assert shared["learns"] == {"head.0.weight", "head.0.bias", "head.2.weight", "head.2.bias"}
    # The hidden layer's gradient passes the last one, which starts at 0 and has moved by the second minibatch.
    assert shared["moved"] == shared["learns"]


@pytest.mark.parametrize("case", ["moving", "alone"])
def test_a_trunk_has_a_copy_of_its_own_where_the_reference_moves_or_there_is_none(
    case: str, found: dict[str, Any]
) -> None:
    assert not any(found[case]["shared"])
    assert not found[case]["policy"]
    assert found[case]["moved"] == found[case]["learns"]
