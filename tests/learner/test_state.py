"""Law 7 in the learner: what goes on from a saved state is what would have gone on."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from rlhf_platform.errors import ClusterError
from rlhf_platform.learner.learner import Learner
from rlhf_platform.learner.process_group import Rendezvous, free_port
from rlhf_platform.recipe.schema import LearnerConfig, LoraConfig, Recipe
from rlhf_platform.types import Prompt
from tests.learner.test_learner import samples_for


def _train(
    rank: int, port: int, config: Recipe, model: Path, clips: list[Prompt], start: Path | None, out: Path
) -> None:
    """Two RL steps, a saved state, two more; or the last two from a state."""
    torch.set_num_threads(1)
    world = config.learner.workers
    learner = Learner(config, model, Rendezvous(rank, world, "127.0.0.1", port, timeout=120))
    samples = samples_for(clips)
    share = len(samples) // world
    mine = samples[rank * share : (rank + 1) * share]
    if start:
        learner.load_state(start)
    else:
        for _ in range(2):
            learner.train(mine)
        learner.save_state(out / "state")
    metrics = [learner.train(mine) for _ in range(2)]
    update = learner.weights(version=1)
    if rank == 0:
        torch.save({"weights": dict(update.tensors), "metrics": metrics}, out / "found.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("ranks", "stage", "lora"),
    [
        (1, 0, 0),
        (1, 0, 4),
        pytest.param(2, 2, 0, marks=pytest.mark.slow),
        (2, 3, 0),
    ],
)
def test_a_learner_that_goes_on_from_its_state_computes_the_same_bits(
    ranks: int, stage: int, lora: int, tiny_checkpoint: Path, clips: list[Prompt], tmp_path: Path
) -> None:
    config = Recipe(name="test", steps=4)
    settings = LearnerConfig(learning_rate=1e-2, schedule="linear", workers=ranks, zero_stage=stage)
    config.learner = replace(settings, lora=LoraConfig(rank=lora))
    found = []
    for name, start in (("whole", None), ("resumed", tmp_path / "whole" / "state")):
        out = tmp_path / name
        out.mkdir()
        arguments = (free_port(), config, tiny_checkpoint, clips, start, out)
        mp.spawn(_train, arguments, nprocs=ranks, join=True)
        found.append(torch.load(out / "found.pt"))
    whole, resumed = found
    assert resumed["metrics"] == whole["metrics"]
    assert whole["metrics"][0]["learning_rate"] == pytest.approx(1e-2 * 0.5)
    assert resumed["weights"].keys() == whole["weights"].keys()
    assert all(torch.equal(resumed["weights"][name], value) for name, value in whole["weights"].items())


def _load_nothing(_: int, port: int, config: Recipe, model: Path, path: Path) -> None:
    learner = Learner(config, model, Rendezvous(0, 1, "127.0.0.1", port, timeout=120))
    with pytest.raises(ClusterError, match="no state of DeepSpeed in it"):
        learner.load_state(path)
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_a_folder_without_a_state_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    mp.spawn(_load_nothing, (free_port(), Recipe(name="test"), tiny_checkpoint, tmp_path), nprocs=1, join=True)
