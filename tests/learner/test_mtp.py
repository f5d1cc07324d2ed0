"""Fitting heads for real: law 5, what each stage moves, a fit anew, state, and the checkpoint that comes of it."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp

from policies.load import load_adapter
from policies.mtp.heads import FOLDER, check_folder, load_heads
from policies.policy import Policy
from policies.weights import checksum
from rlhf_platform.learner.clips import Clips
from rlhf_platform.learner.learner import Learner
from rlhf_platform.learner.mtp import HeadTrainer, fit_heads
from rlhf_platform.learner.process_group import Rendezvous, free_port, join_process_group
from rlhf_platform.recipe.mtp import MultiTokenConfig
from rlhf_platform.recipe.schema import LearnerConfig, Recipe, RolloutConfig
from rlhf_platform.types import Prompt, Sample, StopReason

SGD = LearnerConfig(optimizer="sgd", max_grad_norm=1e9, micro_batch_size=64)
MTP = MultiTokenConfig(blocks=3, learning_rate=0.05, warmup_steps=0, batch_size=4, refit_steps=12)
Weights = dict[str, torch.Tensor]


def samples_for(clips: list[Prompt]) -> list[Sample]:
    """Completions of 1 to 7 tokens: some have no token for the later blocks to guess."""
    made = []
    for i in range(8):
        tokens = tuple(40 + (7 * i + 3 * k) % 200 for k in range(1 + (5 * i) % 7))
        made.append(Sample(clips[i % 4], tokens, (-1.0,) * len(tokens), "", StopReason.EOS, 0))
    return made


def recipe_for(**learner: Any) -> Recipe:
    return Recipe(
        name="a", mtp=MTP, learner=replace(SGD, **learner), rollout=RolloutConfig(speculative="mtp", max_tokens=256)
    )


def moved(recipe: Recipe, checkpoint: Path, meeting: Rendezvous, clips: list[Prompt], joint: bool) -> Weights:
    """All weights after one step on this rank's half, or all, of the samples."""
    join_process_group(meeting)
    adapter = load_adapter("qwen3_asr", checkpoint)
    policy = Policy(adapter, adapter.load_model(torch.float32), 1.0, freeze_encoder=True).eval()
    heads = load_heads(checkpoint / FOLDER, policy.model)
    trainer = HeadTrainer(recipe, policy, heads, meeting, Clips(adapter, policy, False), steps=1, joint=joint)
    samples = samples_for(clips)
    share = len(samples) // meeting.world_size
    trainer.update(samples[meeting.rank * share : (meeting.rank + 1) * share])
    return {f"heads.{n}": p.detach() for n, p in heads.named_parameters()} | {
        f"model.{n}": p.detach() for n, p in policy.model.named_parameters()
    }


def _one_rank(rank: int, port: int, checkpoint: Path, clips: list[Prompt], out: Path) -> None:
    meeting = Rendezvous(0, 1, "127.0.0.1", port, 60)
    found: dict[str, Any] = {
        f"{kind} {joint}": moved(recipe_for(micro_batch_size=size), checkpoint, meeting, clips, joint)
        for joint in (False, True)
        for kind, size in (("whole", 64), ("split", 3))
    }
    found["start"] = {
        f"heads.{n}": p.detach()
        for n, p in load_heads(
            checkpoint / FOLDER, load_adapter("qwen3_asr", checkpoint).load_model(torch.float32)
        ).named_parameters()
    }
    found |= refitted(checkpoint, meeting, clips, out.parent)
    torch.save(found, out)
    torch.distributed.destroy_process_group()


def refitted(checkpoint: Path, meeting: Rendezvous, clips: list[Prompt], folder: Path) -> dict[str, Any]:
    """In a whole learner: losses of two fits, and what the second is after state was put back."""
    recipe = recipe_for(optimizer="adamw")
    recipe.mtp = replace(MTP, learning_rate=3e-3)
    learner = Learner(recipe, checkpoint, meeting)
    policy = {n: p.detach().clone() for n, p in learner._policy.model.named_parameters()}
    samples = samples_for(clips)
    first = learner.refit(samples)["loss"]
    learner.save_state(folder / "state")
    second = learner.refit(samples)["loss"]
    after = learner.heads(3)
    learner.save(folder / "saved")
    again = Learner(recipe, checkpoint, meeting)
    again.load_state(folder / "state")
    repeated = again.refit(samples)["loss"]
    untouched = all(torch.equal(p, policy[n]) for n, p in learner._policy.model.named_parameters())
    sound = after.checksum == checksum(after.tensors) and after.version == 3
    return {"losses": [first, second, repeated], "untouched": untouched, "sound": sound, "sent": dict(after.tensors)}


def _two_ranks(rank: int, port: int, checkpoint: Path, clips: list[Prompt], out: Path) -> None:
    meeting = Rendezvous(rank, 2, "127.0.0.1", port, 60)
    torch.set_num_threads(1)
    found = {str(joint): moved(recipe_for(zero_stage=1), checkpoint, meeting, clips, joint) for joint in (False, True)}
    if rank == 0:
        torch.save(found, out)
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("heads")


@pytest.fixture(scope="module")
def one_rank(drafting_checkpoint: Path, clips: list[Prompt], folder: Path) -> dict[str, Any]:
    mp.spawn(_one_rank, (free_port(), drafting_checkpoint, clips, folder / "one.pt"), nprocs=1, join=True)
    found: dict[str, Any] = torch.load(folder / "one.pt")
    return found


def assert_same(a: Weights, b: Weights) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], atol=1e-6, rtol=1e-5, msg=name)


@pytest.mark.parametrize("joint", [False, True], ids=["blocks alone", "jointly"])
def test_a_step_does_not_depend_on_micro_batches_or_ranks(
    one_rank: dict[str, Any], drafting_checkpoint: Path, clips: list[Prompt], folder: Path, joint: bool
) -> None:
    assert_same(one_rank[f"whole {joint}"], one_rank[f"split {joint}"])
    if not (folder / "two.pt").exists():
        mp.spawn(_two_ranks, (free_port(), drafting_checkpoint, clips, folder / "two.pt"), nprocs=2, join=True)
    assert_same(one_rank[f"whole {joint}"], torch.load(folder / "two.pt")[str(joint)])


def test_the_first_stage_moves_the_blocks_and_nothing_else(one_rank: dict[str, Any], drafting_checkpoint: Path) -> None:
    before = one_rank["start"]
    model = load_adapter("qwen3_asr", drafting_checkpoint).load_model(torch.float32)
    alone, jointly = one_rank["whole False"], one_rank["whole True"]
    for name, value in model.named_parameters():
        assert torch.equal(alone[f"model.{name}"], value), name
        assert torch.equal(jointly[f"model.{name}"], value) is name.startswith("model.audio_tower."), name
    assert all(not torch.equal(value, alone[name]) for name, value in before.items())


def test_a_fit_anew_learns_the_samples_and_leaves_the_policy_alone(one_rank: dict[str, Any], folder: Path) -> None:
    first, second, repeated = one_rank["losses"]
    assert second < first
    assert repeated == pytest.approx(second, rel=1e-5)
    assert one_rank["untouched"]
    assert one_rank["sound"]
    check_folder(folder / "saved")
    model = load_adapter("qwen3_asr", folder / "saved").load_model(torch.float32)
    saved = load_heads(folder / "saved" / FOLDER, model).state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in one_rank["sent"].items())


def _fit(rank: int, port: int, checkpoint: Path, prompts: list[Prompt], out: Path) -> None:
    recipe = recipe_for(optimizer="adamw")
    recipe.mtp = replace(MTP, steps=12, joint_steps=4, learning_rate=3e-3)
    said: list[tuple[int, float]] = []
    found = fit_heads(
        recipe, checkpoint, prompts, Rendezvous(0, 1, "127.0.0.1", port, 60), out, lambda *it: said.append(it)
    )
    torch.save([found, said], out / "said.pt")
    torch.distributed.destroy_process_group()


def test_heads_are_fitted_in_two_stages_and_saved_beside_the_backbone(
    tiny_checkpoint: Path, clips: list[Prompt], tmp_path: Path
) -> None:
    rng = random.Random(0)
    words = "alpha bravo charlie delta"
    prompts = [replace(clip, reference=" ".join(rng.choices(words.split(), k=6))) for clip in clips]
    mp.spawn(_fit, (free_port(), tiny_checkpoint, prompts, tmp_path), nprocs=1, join=True)
    found, said = torch.load(tmp_path / "said.pt")
    assert [step for step, _ in said] == list(range(1, 17))
    assert said[11][1] < said[0][1]
    assert set(found) == {"loss", "mtp_accuracy/1", "mtp_accuracy/2", "mtp_accuracy/3"}
    check_folder(tmp_path)


def _fit_at(rank: int, port: int, stage: int, checkpoint: Path, prompts: list[Prompt], out: Path) -> None:
    torch.set_num_threads(1)
    recipe = recipe_for(optimizer="adamw", zero_stage=stage)
    recipe.mtp = replace(MTP, steps=4, joint_steps=3, learning_rate=3e-3)
    said: list[float] = []
    meeting = Rendezvous(rank, 2, "127.0.0.1", port, 60)
    fit_heads(recipe, checkpoint, prompts, meeting, out, lambda _, loss: said.append(loss))
    if rank == 0:
        torch.save(said, out / "said.pt")
    torch.distributed.destroy_process_group()


def test_both_stages_have_the_same_losses_on_two_ranks_whole_and_divided(
    tiny_checkpoint: Path, clips: list[Prompt], tmp_path: Path
) -> None:
    prompts = [replace(clip, reference="alpha bravo seven delta echo") for clip in clips]
    found = []
    for stage in (0, 2, 3):
        out = tmp_path / str(stage)
        mp.spawn(_fit_at, (free_port(), stage, tiny_checkpoint, prompts, out), nprocs=2, join=True)
        check_folder(out)
        found.append(torch.load(out / "said.pt"))
    assert found[1] == pytest.approx(found[0], abs=1e-4)
    assert found[2] == pytest.approx(found[0], abs=1e-4)
