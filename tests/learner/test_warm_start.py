"""The real TRL trainer on DeepSpeed, two ranks: what it saves is a whole model, at ZeRO 3 too."""

from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from policies.load import load_adapter
from rlhf_platform.learner import sft
from rlhf_platform.learner.learner import Rendezvous, deepspeed_config, free_port
from rlhf_platform.recipe.schema import LearnerConfig, Recipe, SFTConfig
from rlhf_platform.types import Prompt


def _train(rank: int, port: int, stage: int, model: Path, clips: list[Prompt], out: Path) -> None:
    torch.set_num_threads(1)
    # DeepSpeed leaves parameters as small as these whole at ZeRO 3 unless told otherwise.
    split = {"zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 0}}
    sft.deepspeed_config = lambda learner, dtype: deepspeed_config(learner, dtype) | split
    recipe = Recipe(name="test", sft=SFTConfig(steps=2, batch_size=4, warmup_steps=0, learning_rate=1e-3))
    recipe.learner = LearnerConfig(workers=2, zero_stage=stage)
    sft.warm_start(recipe, model, clips, Rendezvous(rank, 2, "127.0.0.1", port, 120), out, lambda step, loss: None)
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("stage", [0, 3])
def test_the_saved_warm_start_is_whole_and_has_moved(
    stage: int, tiny_checkpoint: Path, clips: list[Prompt], tmp_path: Path
) -> None:
    mp.spawn(_train, (free_port(), stage, tiny_checkpoint, clips, tmp_path / "out"), nprocs=2, join=True)
    start = dict(load_adapter("qwen3_asr", tiny_checkpoint).load_model(torch.float32).named_parameters())
    saved = dict(load_adapter("qwen3_asr", tmp_path / "out").load_model(torch.float32).named_parameters())
    assert {name: p.shape for name, p in saved.items()} == {name: p.shape for name, p in start.items()}
    moved = [name for name, p in saved.items() if not torch.equal(p, start[name])]
    assert len(moved) > 0.9 * len(start)
    largest = max(float((p - start[name]).abs().max()) for name, p in saved.items())
    assert largest < 0.05  # two small steps away, not drawn anew
