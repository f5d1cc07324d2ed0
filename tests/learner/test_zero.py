"""ZeRO 0 to 3 are one learner: the same losses, what each saves goes on alike, what it exports is what it trained."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp

from policies.batch import make_batch
from policies.load import load_adapter
from policies.policy import Policy
from rlhf_platform.learner.learner import Learner
from rlhf_platform.learner.process_group import Rendezvous, free_port
from rlhf_platform.learner.samples import TrainSample
from rlhf_platform.recipe.algorithms import GRPO
from rlhf_platform.recipe.schema import LearnerConfig, Recipe
from rlhf_platform.types import Prompt, Sample
from tests.learner.test_learner import samples_for

STEPS, SAVED_AFTER = 5, 3
STAGES = (0, 1, 2, 3)


def recipe_of(stage: int, ranks: int) -> Recipe:
    algorithm = GRPO(kl_coef=0.1, minibatches=2)  # a policy that moves within the step: its loss is not 0
    learner = LearnerConfig(workers=ranks, zero_stage=stage, learning_rate=1e-3, micro_batch_size=3)
    return Recipe(name="test", steps=STEPS, algorithm=algorithm, learner=learner)


def _train(rank: int, ranks: int, port: int, stage: int, model: Path, samples: list[TrainSample], out: Path) -> None:
    torch.set_num_threads(1)
    meeting = Rendezvous(rank, ranks, "127.0.0.1", port, timeout=120)
    share = len(samples) // ranks
    mine = samples[rank * share : (rank + 1) * share]
    learner = Learner(recipe_of(stage, ranks), model, meeting)
    losses = []
    for step in range(STEPS):
        losses.append(learner.train(mine)["policy_loss"])
        if step + 1 == SAVED_AFTER:
            learner.save_state(out / "state")
    learner.save(out / "export")
    logprobs = learner.logprobs([s.sample for s in samples])
    again = Learner(recipe_of(stage, ranks), model, meeting)
    again.load_state(out / "state")
    resumed = [again.train(mine)["policy_loss"] for _ in range(STEPS - SAVED_AFTER)]
    if rank == 0:
        torch.save({"losses": losses, "resumed": resumed, "logprobs": logprobs}, out / "found.pt")
    torch.distributed.destroy_process_group()


def trained(ranks: int, stage: int, model: Path, clips: list[Prompt], out: Path) -> dict[str, Any]:
    out.mkdir()
    mp.spawn(_train, (ranks, free_port(), stage, model, samples_for(clips), out), nprocs=ranks, join=True)
    found: dict[str, Any] = torch.load(out / "found.pt")
    return found


@torch.no_grad()
def exported(path: Path, samples: Sequence[Sample]) -> list[list[float]]:
    """Log-probs by the checkpoint alone, loaded in Transformers."""
    adapter = load_adapter("qwen3_asr", path)
    policy = Policy(adapter, adapter.load_model(torch.float32), temperature=1.0, freeze_encoder=True).eval()
    found = []
    for sample in samples:
        batch = make_batch([adapter.encode(sample.prompt)], [0], [sample.tokens], adapter.tokenizer.pad_token_id)
        found.append(policy(batch)[0][0].tolist())
    return found


@pytest.fixture(scope="module")
def alone(tiny_checkpoint: Path, clips: list[Prompt], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One rank without ZeRO."""
    return trained(1, 0, tiny_checkpoint, clips, tmp_path_factory.mktemp("zero") / "alone")


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_has_the_same_losses_goes_on_from_its_state_and_exports_what_it_trained(
    stage: int, alone: dict[str, Any], tiny_checkpoint: Path, clips: list[Prompt], tmp_path: Path
) -> None:
    found = trained(2, stage, tiny_checkpoint, clips, tmp_path / "two")
    assert found["losses"] == pytest.approx(alone["losses"], abs=1e-4)
    assert max(map(abs, found["losses"])) > 1e-3
    assert found["resumed"] == found["losses"][SAVED_AFTER:]
    samples = [replace(s.sample) for s in samples_for(clips)]
    for ours, theirs in zip(exported(tmp_path / "two" / "export", samples), found["logprobs"], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
    start = exported(tiny_checkpoint, samples[:1])[0]
    assert start != pytest.approx(found["logprobs"][0], abs=1e-2), "nothing was trained"
