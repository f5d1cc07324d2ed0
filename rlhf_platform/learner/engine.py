"""A module on DeepSpeed, its optimiser and its learning rate: what policy and critic have in common."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from rlhf_platform.errors import ClusterError
from rlhf_platform.learner.process_group import Rendezvous
from rlhf_platform.recipe.schema import LearnerConfig

Item = TypeVar("Item")


class Engine:
    """One rank's part of a module in training. What is called on one rank is called on all."""

    def __init__(
        self, module: nn.Module, config: LearnerConfig, dtype: str, rendezvous: Rendezvous, rate: Callable[[int], float]
    ) -> None:
        """`rate`: the learning rate of optimiser step n, from 0."""
        import deepspeed

        self.module, self._config, self._rate, self._ranks = module, config, rate, rendezvous.world_size
        self.updates = 0
        """Optimiser steps so far."""
        trainable = [p for p in module.parameters() if p.requires_grad]
        self.trainable_parameters = sum(p.numel() for p in trainable)
        self._optimizer = optimizer(trainable, config, rate(0))
        self._engine, *_ = deepspeed.initialize(
            model=module, optimizer=self._optimizer, model_parameters=trainable, config=deepspeed_config(config, dtype)
        )
        self.device: torch.device = self._engine.device

    def __call__(self, *arguments: Any) -> Any:
        """The module's forward; at ZeRO 3 the only place where its weights are whole."""
        return self._engine(*arguments)

    @property
    def learning_rate(self) -> float:
        return float(self._optimizer.param_groups[0]["lr"])

    def update(self, parts: Sequence[Item], loss_of: Callable[[Item], Tensor]) -> float:
        """One optimiser step on the sum of the parts' losses over all ranks.

        Returns the gradient's norm before it is clipped, over all ranks.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate(self.updates)
        for number, part in enumerate(parts, start=1):
            # DeepSpeed averages gradients over ranks; times the number of ranks makes that a sum.
            loss = loss_of(part) * self._ranks
            self._engine.set_gradient_accumulation_boundary(number == len(parts))
            self._engine.backward(loss)
        # DeepSpeed reports no norm at stage 0 in float32; each rank holds the whole gradient there.
        replicated = self._replicated_norm() if self._config.zero_stage == 0 else None
        self._engine.step()
        self.updates += 1
        return float(self._engine.get_global_grad_norm() or 0.0) if replicated is None else replicated

    def _replicated_norm(self) -> float:
        gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
        return float(torch.nn.utils.get_total_norm(gradients))

    def save_state(self, path: Path, tag: str, progress: dict[str, Any]) -> None:
        """Write trained weights, optimiser, updates so far and `progress`; frozen weights are left out."""
        kept = progress | {"updates": self.updates}
        self._engine.save_checkpoint(
            str(path), tag=tag, client_state=kept, save_latest=False, exclude_frozen_parameters=True
        )

    def load_state(self, path: Path, tag: str) -> dict[str, Any]:
        """Go on from what `save_state` wrote, on as many ranks; its `progress`. Raises ClusterError without it."""
        if not (path / tag).is_dir():
            raise ClusterError(f"{path}: no state of DeepSpeed in it; is the folder seen by every machine?")
        _, progress = self._engine.load_checkpoint(str(path), tag=tag, load_module_strict=False)
        self.updates = int(progress["updates"])
        found: dict[str, Any] = progress
        return found


def optimizer(parameters: Sequence[nn.Parameter], config: LearnerConfig, rate: float) -> torch.optim.Optimizer:
    """The recipe's `learner.optimizer`."""
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=rate, weight_decay=config.weight_decay)
    low, high = config.adam_betas
    return torch.optim.AdamW(parameters, lr=rate, betas=(low, high), weight_decay=config.weight_decay)


def learning_rate_at(config: LearnerConfig, update: int, total: int) -> float:
    """Learning rate of optimiser step `update` (from 0) of `total`: linear warm-up, then `learner.schedule`."""
    ramp = min(1.0, (update + 1) / max(1, config.warmup_steps))
    done = update / max(1, total)
    if config.schedule == "linear":
        ramp = min(ramp, 1 - done)
    elif config.schedule == "cosine":
        ramp = min(ramp, (1 + math.cos(math.pi * done)) / 2)
    return config.learning_rate * ramp


def deepspeed_config(learner: LearnerConfig, dtype: str) -> dict[str, object]:
    """DeepSpeed's own settings. Micro-batches are accumulated by the learner, which alone knows the token count."""
    zero: dict[str, object] = {"stage": learner.zero_stage}
    if learner.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu"}
    if learner.offload == "weights":
        zero["offload_param"] = {"device": "cpu"}
    return {
        "train_micro_batch_size_per_gpu": learner.micro_batch_size,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": learner.max_grad_norm,
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,  # its own Adam is compiled on first use
        "bf16": {"enabled": dtype == "bfloat16"},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
    }
