"""What the stages on TRL's trainers have in common: settings, rows that stay as they are, a whole checkpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from rlhf_platform.learner.engine import learning_rate_at
from rlhf_platform.learner.process_group import Rendezvous
from rlhf_platform.recipe.schema import LearnerConfig, Recipe

Progress = Callable[[int, float], None]
"""Called with the optimiser step reached and the loss there."""
Logs = list[dict[str, float]]


def common_arguments(
    recipe: Recipe,
    out: Path,
    deepspeed: dict[str, object],
    *,
    steps: int,
    rows: int,
    accumulation: int = 1,
    max_grad_norm: float,
    seed: int,
) -> dict[str, Any]:
    """Arguments of every trainer: rows in the order of the dataset, nothing kept, nothing sent.

    `rows`: of the dataset per rank and forward; `accumulation`: forwards per optimiser step.
    """
    on_cpu = not torch.cuda.is_available()
    return {
        "output_dir": str(out.parent / f"{out.name}.trainer"),
        "max_steps": steps,
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": accumulation,
        "max_grad_norm": max_grad_norm,
        "bf16": recipe.backbone.dtype == "bfloat16",
        "use_cpu": on_cpu,
        "deepspeed": deepspeed
        | {
            "train_micro_batch_size_per_gpu": rows,
            "gradient_accumulation_steps": accumulation,
            "gradient_clipping": max_grad_norm,
        },
        "remove_unused_columns": False,
        "train_sampling_strategy": "sequential",
        "max_length": None,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": not on_cpu,
        "seed": seed,
    }


def learner_arguments(config: LearnerConfig) -> dict[str, Any]:
    """The arguments that say how the recipe's `learner` optimises; the learning rate's course is `Rows`'."""
    low, high = config.adam_betas
    return {
        "learning_rate": config.learning_rate,
        "weight_decay": config.weight_decay,
        "optim": {"adamw": "adamw_torch", "sgd": "sgd"}[config.optimizer],
        "adam_beta1": low,
        "adam_beta2": high,
        "gradient_checkpointing": config.activation_checkpointing,
    }


class Rows:
    """To be put before a trainer of TRL: its rows are numbers that our collator knows, not texts to be tokenized.

    `config`, `first` and `total` place its optimiser steps in the whole course of the learning rate.
    """

    config: LearnerConfig
    first: int
    total: int

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        def share(step: int) -> float:
            return learning_rate_at(self.config, self.first + step, self.total) / self.config.learning_rate

        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, share)
        return self.lr_scheduler

    optimizer: Any


class Reporter(TrainerCallback):
    """Says each logged loss, and keeps what was logged with it."""

    def __init__(self, report: Progress) -> None:
        self._report = report
        self.logs: Logs = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.logs.append({name: float(value) for name, value in logs.items()})
            self._report(state.global_step, float(logs["loss"]))


def save_whole(trainer: Any, rendezvous: Rendezvous, zero_stage: int, save: Callable[[nn.Module], None]) -> None:
    """Let rank 0 `save` the trained module. Every rank must call it: at ZeRO 3 they gather together."""
    import deepspeed
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    trained = trainer.accelerator.unwrap_model(trainer.model_wrapped)
    # At ZeRO 3 a rank holds a part of each weight: saved as it is, the checkpoint would be empty.
    with deepspeed.zero.GatheredParameters(list(trained.parameters()), enabled=zero_stage == 3):
        unset_hf_deepspeed_config()  # or a checkpoint that LoRA is merged into would be split as it is loaded
        if rendezvous.rank == 0:
            save(trained)
