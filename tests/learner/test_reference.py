"""The reference of the KL in the real learner: the warm start, or the policy of an earlier step."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp

from rlhf_platform.learner import engine
from rlhf_platform.learner.engine import deepspeed_config
from rlhf_platform.learner.learner import Learner
from rlhf_platform.learner.process_group import Rendezvous, free_port
from rlhf_platform.learner.reference import Reference
from rlhf_platform.recipe.algorithms import GRPO
from rlhf_platform.recipe.schema import LearnerConfig, LoraConfig, Recipe
from rlhf_platform.types import Prompt
from tests.learner.test_learner import samples_for

STEPS = 3


def kept(model: Path, port: int) -> dict[str, bool]:
    """Whether a learner holds a copy of the weights for its reference."""

    def reference(kl_coef: float, rank: int) -> Reference | None:
        settings = replace(LearnerConfig(), lora=LoraConfig(rank=rank))
        recipe = Recipe(name="test", algorithm=GRPO(kl_coef=kl_coef), learner=settings)
        return Learner(recipe, model, Rendezvous(0, 1, "127.0.0.1", port, timeout=120))._reference

    with_lora = reference(0.1, 2)
    assert with_lora is not None
    assert with_lora.trunk is None
    return {"without KL": reference(0.0, 0) is not None, "with LoRA": with_lora._frozen is not None}


def _run(
    rank: int,
    ranks: int,
    stage: int,
    steps_between: Sequence[int],
    port: int,
    model: Path,
    clips: list[Prompt],
    out: Path,
) -> None:
    torch.set_num_threads(1)
    # DeepSpeed leaves parameters as small as these whole at ZeRO 3 unless told otherwise.
    split = {"zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 0}}
    engine.deepspeed_config = lambda learner, dtype: deepspeed_config(learner, dtype) | split
    samples = samples_for(clips)
    share = len(samples) // ranks
    mine = samples[rank * share : (rank + 1) * share]
    found: dict[int, Any] = {}
    for every in steps_between:
        settings = LearnerConfig(learning_rate=1e-2, workers=ranks, zero_stage=stage)
        recipe = Recipe(name="test", algorithm=GRPO(kl_coef=0.1, reference_every=every), learner=settings)
        learner = Learner(recipe, model, Rendezvous(rank, ranks, "127.0.0.1", port, timeout=120))
        assert learner._reference is not None
        assert learner._reference._frozen is not None
        frozen = learner._reference._frozen.model
        versions = [learner.weights(0).tensors]
        kls, nearest = [], []
        for _ in range(STEPS):
            kls.append(learner.train(mine)["kl"])
            versions.append(learner.weights(0).tensors)
            now = {learner._adapter.vllm_name(name): p for name, p in frozen.named_parameters()}
            nearest.append([all(torch.equal(old[n], p) for n, p in now.items() if n in old) for old in versions])
        seen = learner.see([s.sample for s in mine])
        learner._reference.save(out.parent, rank)
        found[every] = {
            "kl": kls,
            "is": nearest,
            "names": len(versions[0].keys() & now.keys()),
            "apart": max(float(abs(s.logprobs - s.reference).max()) for s in seen),  # type: ignore[operator]
            "saved": (out.parent / "reference.safetensors").exists(),
        }
    if ranks == 1:
        found[0]["kept"] = kept(model, port)
    if rank == 0:
        torch.save(found, out)
    torch.distributed.destroy_process_group()


def trained(model: Path, clips: list[Prompt], out: Path, ranks: int, stage: int, *steps_between: int) -> dict[int, Any]:
    arguments = (ranks, stage, steps_between, free_port(), model, clips, out)
    mp.spawn(_run, arguments, nprocs=ranks, join=True)
    found: dict[int, Any] = torch.load(out)
    assert all(each["names"] > 20 for each in found.values())
    return found


@pytest.fixture(scope="module")
def found(tiny_checkpoint: Path, clips: list[Prompt], tmp_path_factory: pytest.TempPathFactory) -> dict[int, Any]:
    """By `algorithm.reference_every`."""
    return trained(tiny_checkpoint, clips, tmp_path_factory.mktemp("reference") / "out.pt", 1, 0, 0, 1, 2)


def test_the_warm_start_stays_the_reference_unless_told_otherwise(found: dict[int, Any]) -> None:
    """Row i: whether the reference after step i is the policy of the start, after step 1, ..."""
    assert found[0]["is"] == [[True, False], [True, False, False], [True, False, False, False]]
    first, second, third = found[0]["kl"]
    assert first == pytest.approx(0.0, abs=1e-9)
    assert second > 1e-4
    assert third > 1e-4
    assert found[0]["apart"] > 1e-2
    assert not found[0]["saved"]


def assert_follows(found: dict[str, Any]) -> None:
    """So that the KL, measured before the step's one update, is 0 in each."""
    assert found["is"] == [[False, True], [False, False, True], [False, False, False, True]]
    assert found["kl"] == pytest.approx([0.0] * STEPS, abs=1e-9)
    assert found["apart"] < 1e-4
    assert found["saved"]


def test_every_step_the_reference_becomes_the_policy_of_that_moment(found: dict[int, Any]) -> None:
    assert_follows(found[1])


@pytest.mark.slow
def test_at_zero_3_the_ranks_put_the_policy_together_for_it(
    tiny_checkpoint: Path, clips: list[Prompt], tmp_path: Path
) -> None:
    assert_follows(trained(tiny_checkpoint, clips, tmp_path / "out.pt", 2, 3, 1)[1])


def test_every_second_step_it_does_so_in_every_second_alone(found: dict[int, Any]) -> None:
    assert found[2]["is"] == [[True, False], [False, False, True], [False, False, True, False]]
    first, second, third = found[2]["kl"]
    assert second == pytest.approx(found[0]["kl"][1], rel=1e-3)
    assert (first, third) == pytest.approx((0.0, 0.0), abs=1e-9)


def test_no_copy_is_kept_without_a_kl_or_with_lora(found: dict[int, Any]) -> None:
    assert found[0]["kept"] == {"without KL": False, "with LoRA": False}
