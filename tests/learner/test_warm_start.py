"""The real TRL trainer on DeepSpeed: each stage moves what it is to move, what it saves is whole, at ZeRO 3 too."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from policies.load import load_adapter
from policies.lora import has_lora
from policies.speaking import SpeechLayout
from rlhf_platform.errors import RecipeError
from rlhf_platform.learner import sft
from rlhf_platform.learner.engine import deepspeed_config
from rlhf_platform.learner.process_group import Rendezvous, free_port
from rlhf_platform.recipe.schema import LearnerConfig, LoraConfig, Recipe, SFTConfig
from rlhf_platform.types import Prompt
from tests.layouts import LAYOUTS
from tests.speaking import PROMPTS, write_speaking_checkpoint


def _train(rank: int, port: int, recipe: Recipe, stage: sft.Stage, courses: list[sft.Course], out: Path) -> None:
    torch.set_num_threads(1)
    losses: list[float] = []
    # DeepSpeed leaves parameters as small as these whole at ZeRO 3 unless told otherwise.
    split = {"zero_optimization": {"stage": recipe.learner.zero_stage, "stage3_param_persistence_threshold": 0}}
    sft.deepspeed_config = lambda learner, dtype: deepspeed_config(learner, dtype) | split
    meeting = Rendezvous(rank, recipe.learner.workers, "127.0.0.1", port, 120)
    sft.warm_start(recipe, stage, courses, meeting, out, lambda step, loss: losses.append(loss))
    if rank == 0:
        torch.save(losses, out / "losses.pt")
    torch.distributed.destroy_process_group()


def run(
    recipe: Recipe, stage: sft.Stage, model: Path, clips: list[Prompt], out: Path, *beside: sft.Course
) -> list[float]:
    """A stage in processes of its own, as the actors are; the losses that it reports, one for ten steps."""
    arguments = (free_port(), recipe, stage, [sft.Course("qwen3_asr", str(model), clips), *beside], out)
    mp.spawn(_train, arguments, nprocs=recipe.learner.workers, join=True)
    return list(torch.load(out / "losses.pt"))


def weights(path: Path) -> dict[str, torch.Tensor]:
    return {n: p.detach() for n, p in load_adapter("qwen3_asr", path).load_model(torch.float32).named_parameters()}


def moved_between(start: Path, end: Path) -> set[str]:
    """Names of the weights that differ; the checkpoints have the same weights otherwise."""
    before, after = weights(start), weights(end)
    assert {name: p.shape for name, p in after.items()} == {name: p.shape for name, p in before.items()}
    largest = max(float((p - before[name]).abs().max()) for name, p in after.items())
    assert largest < 0.5  # some steps away, not drawn anew
    return {name for name, p in after.items() if not torch.equal(p, before[name])}


def some_steps(steps: int, **section: object) -> SFTConfig:
    return SFTConfig(steps=steps, batch_size=4, warmup_steps=0, **({"learning_rate": 1e-3} | section))  # type: ignore[arg-type]


@pytest.mark.parametrize("stage", [0, 3])
def test_the_saved_warm_start_is_whole_and_has_moved(
    stage: int, tiny_checkpoint: Path, clips: list[Prompt], tmp_path: Path
) -> None:
    recipe = Recipe(name="test", sft=some_steps(2), learner=LearnerConfig(workers=2, zero_stage=stage))
    run(recipe, "sft", tiny_checkpoint, clips, tmp_path / "out")
    assert len(moved_between(tiny_checkpoint, tmp_path / "out")) > 0.9 * len(weights(tiny_checkpoint))


def test_align_teaches_the_adaptor_and_nothing_else(tiny_checkpoint: Path, clips: list[Prompt], tmp_path: Path) -> None:
    recipe = Recipe(name="test", align=some_steps(40, learning_rate=1e-2))
    losses = run(recipe, "align", tiny_checkpoint, clips, tmp_path / "out")
    assert losses[-1] < 0.9 * losses[0]
    adapter = load_adapter("qwen3_asr", tiny_checkpoint)
    adaptor = {name for name in weights(tiny_checkpoint) if adapter.is_adaptor(name)}
    assert moved_between(tiny_checkpoint, tmp_path / "out") == adaptor != set()


def test_a_frozen_encoder_stays_and_all_else_learns(tiny_checkpoint: Path, clips: list[Prompt], tmp_path: Path) -> None:
    run(Recipe(name="test", sft=some_steps(2, freeze_encoder=True)), "sft", tiny_checkpoint, clips, tmp_path / "out")
    adapter = load_adapter("qwen3_asr", tiny_checkpoint)
    moved = moved_between(tiny_checkpoint, tmp_path / "out")
    assert not any(adapter.is_encoder(name) for name in moved)
    assert len(moved) > 0.9 * sum(not adapter.is_encoder(name) for name in weights(tiny_checkpoint))


@pytest.mark.parametrize("stage", [0, pytest.param(3, marks=pytest.mark.slow)])
def test_with_lora_its_layers_and_the_adaptor_move_and_a_plain_checkpoint_is_saved(
    stage: int, tiny_checkpoint: Path, clips: list[Prompt], tmp_path: Path
) -> None:
    recipe = Recipe(name="test", sft=some_steps(3, lora=LoraConfig(rank=2)))
    recipe.learner = LearnerConfig(workers=2, zero_stage=stage)
    run(recipe, "sft", tiny_checkpoint, clips, tmp_path / "out")
    adapter = load_adapter("qwen3_asr", tmp_path / "out")
    assert not has_lora(adapter.load_model(torch.float32))
    moved = moved_between(tiny_checkpoint, tmp_path / "out")
    adaptor = {name for name in weights(tiny_checkpoint) if adapter.is_adaptor(name)}
    layers = {name.rpartition(".")[0].rpartition(".")[2] for name in moved - adaptor}
    assert adaptor <= moved
    assert layers == set(adapter.lora_targets)
    assert not any(adapter.is_encoder(name) for name in moved)


@given(
    st.integers(1, 40), st.integers(1, 4), st.floats(0.05, 0.9), st.integers(1, 9), st.integers(1, 9), st.floats(0, 1)
)
def test_each_step_is_of_one_course_and_courses_have_their_share(
    steps: int, batch: int, share: float, own: int, other: int, curriculum: float
) -> None:
    config = SFTConfig(steps=steps, batch_size=batch, curriculum=curriculum)
    order = sft.course_order([[1.0] * own, [2.0] * other], [1 - share, share], config)
    assert len(order) == steps * batch
    owners = [{course for course, _ in order[at : at + batch]} for at in range(0, len(order), batch)]
    assert all(len(owner) == 1 for owner in owners)
    for upto in range(1, steps + 1):
        assert abs(sum(owner == {1} for owner in owners[:upto]) - share * upto) <= 1
    for course, size in enumerate((own, other)):
        rows = [row for owner, row in order if owner == course]
        assert set(rows) <= set(range(size))
    alone = sft.course_order([[1.0] * own], [1.0], config)
    assert [row for _, row in alone] == sft.clip_order([1.0] * own, steps * batch, curriculum, 0)


@pytest.mark.parametrize(("ranks", "stage"), [(1, 0), (2, 2), pytest.param(2, 3, marks=pytest.mark.slow)])
def test_what_is_spoken_is_learnt_beside_what_is_heard_and_goes_along(
    ranks: int, stage: int, tiny_checkpoint: Path, clips: list[Prompt], tmp_path: Path
) -> None:
    write_speaking_checkpoint(tiny_checkpoint, tmp_path / "speaks")
    spoken = [replace(prompt, metadata={**prompt.metadata, "codec": [0, 8, 12] * 4}) for prompt in PROMPTS]
    course = sft.Course("qwen3_asr", str(tmp_path / "speaks"), spoken)
    recipe = Recipe(name="test", sft=some_steps(4, beside="tts.yaml", beside_share=0.5))
    recipe.learner = LearnerConfig(workers=ranks, zero_stage=stage)
    run(recipe, "sft", tiny_checkpoint, clips, tmp_path / "out", course)
    hearing = load_adapter("qwen3_asr", tiny_checkpoint)
    moved = moved_between(tiny_checkpoint, tmp_path / "out")
    assert any(hearing.is_encoder(name) for name in moved), "it has learnt to hear"
    assert SpeechLayout.read(tmp_path / "out") == SpeechLayout.read(tmp_path / "speaks")
    before, after = (likelihood(spoken[0], path) for path in (tmp_path / "speaks", tmp_path / "out"))
    assert after > before + 0.1, "it has learnt to speak"


def likelihood(prompt: Prompt, path: Path) -> float:
    """Mean log-prob of the speech of a prompt."""
    adapter = load_adapter("qwen3_asr", path)
    asked, target = adapter.encode(prompt).token_ids, adapter.target(prompt)
    model = adapter.load_model(torch.float32).eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*asked, *target]])).logits[0, len(asked) - 1 : -1]
    return float(logits.log_softmax(-1)[range(len(target)), target].mean())


def test_autocast_computes_in_bfloat16_and_leaves_float32(
    tiny_checkpoint: Path, clips: list[Prompt], tmp_path: Path
) -> None:
    lost = {}
    for autocast in (False, True):
        recipe = Recipe(name="test", sft=some_steps(10, autocast=autocast))
        lost[autocast] = run(recipe, "sft", tiny_checkpoint, clips, tmp_path / str(autocast))
    assert lost[True] == pytest.approx(lost[False], abs=0.05)
    kept = [load_file(tmp_path / str(autocast) / "model.safetensors") for autocast in (False, True)]
    assert {tensor.dtype for tensor in kept[1].values()} == {torch.float32}
    coarse = [tensor.bfloat16().float().equal(tensor) for tensor in kept[1].values() if tensor.ndim > 1]
    assert not any(coarse), "the weights have what bfloat16 rounds away"
    assert any(not kept[0][name].equal(tensor) for name, tensor in kept[1].items())


def test_a_layout_without_an_adaptor_cannot_be_aligned(tmp_path: Path) -> None:
    LAYOUTS["whisper"].build(tmp_path, True)
    adapter = load_adapter("whisper", tmp_path)
    with pytest.raises(RecipeError, match=r"^align\.steps is 7: this backbone has no adaptor .*; set it to 0$"):
        sft.freeze(adapter, adapter.load_model(torch.float32), "align", SFTConfig(steps=7))
