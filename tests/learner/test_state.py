"""Law 7 in the learner: what goes on from a saved state is what would have gone on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from rlhf_platform.errors import ClusterError
from rlhf_platform.learner.learner import Learner
from rlhf_platform.learner.process_group import Rendezvous, free_port
from rlhf_platform.recipe.algorithms import GRPO, PPO, OnlineConfig
from rlhf_platform.recipe.schema import LearnerConfig, LoraConfig, Recipe
from rlhf_platform.train.advantages import advantages_of
from rlhf_platform.types import Prompt
from tests.learner.test_law5 import scored_for
from tests.learner.test_learner import samples_for

PLAIN = GRPO()
MOVING = PPO(
    minibatches=2,
    reference_every=3,
    kl_target=0.1,
    entropy_coef=0.01,
    entropy_target=4.0,
    critic_learning_rate=1e-3,
    critic_warmup=1,
)
"""All that a step can depend on: a critic that has warmed up, steered weights, a reference that moves after the third
step."""
FOLLOWING = replace(MOVING, reference_every=2, critic="trunk")
"""Its reference is no longer the warm start when the state is saved."""


def one_step(learner: Learner, algorithm: OnlineConfig, clips: list[Prompt], rank: int, world: int) -> dict[str, float]:
    share = 16 // world
    mine = slice(rank * share, (rank + 1) * share)
    if not isinstance(algorithm, PPO):
        return learner.train(samples_for(clips)[mine])
    scored = scored_for(clips)[mine]
    return learner.train(advantages_of(scored, algorithm, learner.see([s.sample for s in scored])))


def _train(
    rank: int, port: int, config: Recipe, model: Path, clips: list[Prompt], start: Path | None, out: Path
) -> None:
    """Two RL steps, a saved state, two more; or the last two from a state."""
    torch.set_num_threads(1)
    world, algorithm = config.learner.workers, config.algorithm
    assert isinstance(algorithm, OnlineConfig)
    learner = Learner(config, model, Rendezvous(rank, world, "127.0.0.1", port, timeout=120))
    if start:
        learner.load_state(start)
    else:
        for _ in range(2):
            one_step(learner, algorithm, clips, rank, world)
        learner.save_state(out / "state")
    metrics = [one_step(learner, algorithm, clips, rank, world) for _ in range(2)]
    update = learner.weights(version=1)
    seen = learner.see([s.sample for s in scored_for(clips)])
    if rank == 0:
        torch.save({"weights": dict(update.tensors), "metrics": metrics, "seen": seen}, out / "found.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("algorithm", "ranks", "stage", "lora"),
    [
        (PLAIN, 1, 0, 0),
        (PLAIN, 1, 0, 4),
        pytest.param(PLAIN, 2, 2, 0, marks=pytest.mark.slow),
        pytest.param(PLAIN, 2, 3, 0, marks=pytest.mark.slow),  # as test_zero.py
        (MOVING, 1, 0, 0),
        pytest.param(FOLLOWING, 1, 0, 0, marks=pytest.mark.slow),
        pytest.param(FOLLOWING, 2, 3, 0, marks=pytest.mark.slow),
    ],
    ids=["plain", "lora", "plain, zero 2", "plain, zero 3", "ppo", "ppo on the trunk", "ppo, zero 3"],
)
def test_a_learner_that_goes_on_from_its_state_computes_the_same_bits(
    algorithm: OnlineConfig,
    ranks: int,
    stage: int,
    lora: int,
    tiny_checkpoint: Path,
    clips: list[Prompt],
    tmp_path: Path,
) -> None:
    config = Recipe(name="test", steps=4, algorithm=algorithm)
    settings = LearnerConfig(learning_rate=1e-2, schedule="linear", workers=ranks, zero_stage=stage)
    config.learner = replace(settings, lora=LoraConfig(rank=lora))
    found = []
    for name, start in (("whole", None), ("resumed", tmp_path / "whole" / "state")):
        out = tmp_path / name
        out.mkdir()
        arguments = (free_port(), config, tiny_checkpoint, clips, start, out)
        mp.spawn(_train, arguments, nprocs=ranks, join=True)
        found.append(torch.load(out / "found.pt", weights_only=False))
    whole, resumed = found
    assert resumed["metrics"] == whole["metrics"]
    assert resumed["weights"].keys() == whole["weights"].keys()
    assert all(torch.equal(resumed["weights"][name], value) for name, value in whole["weights"].items())
    for one, other in zip(whole["seen"], resumed["seen"], strict=True):
        for column in ("logprobs", "reference", "penalty", "values"):
            np.testing.assert_array_equal(getattr(one, column), getattr(other, column))
    if isinstance(algorithm, PPO):
        # What was steered had left its start, and moved on.
        weights = [m["kl_coef"] for m in whole["metrics"]]
        assert len({algorithm.kl_coef, *weights}) == 3
        assert whole["metrics"][0]["explained_variance"] != 0
        # Three steps of two updates after the warm-up; this is the last of the second.
        assert whole["metrics"][0]["learning_rate"] == pytest.approx(1e-2 * (1 - 3 / 6))
    else:
        assert whole["metrics"][0]["learning_rate"] == pytest.approx(1e-2 * 0.5)


def _load_nothing(_: int, port: int, config: Recipe, model: Path, path: Path) -> None:
    learner = Learner(config, model, Rendezvous(0, 1, "127.0.0.1", port, timeout=120))
    with pytest.raises(ClusterError, match="no state of DeepSpeed in it"):
        learner.load_state(path)
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_a_folder_without_a_state_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    mp.spawn(_load_nothing, (free_port(), Recipe(name="test"), tiny_checkpoint, tmp_path), nprocs=1, join=True)
