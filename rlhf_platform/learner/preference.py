"""DPO, IPO and KTO with TRL's trainers on DeepSpeed, one rank of one round."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from policies.load import load_adapter
from policies.lora import add_lora, save_merged
from policies.policy import freeze
from rlhf_platform.data.pairs import Judgement, Opinion, Pair, opinions
from rlhf_platform.learner.collators import OpinionCollator, PairCollator
from rlhf_platform.learner.engine import deepspeed_config
from rlhf_platform.learner.process_group import Rendezvous, join_process_group
from rlhf_platform.learner.sft import clip_order
from rlhf_platform.learner.trainer import (
    Logs,
    Progress,
    Reporter,
    Rows,
    common_arguments,
    learner_arguments,
    save_whole,
)
from rlhf_platform.recipe.preferences import DPO, IPO, KTO, SMOOTHING, JudgedConfig, PreferenceConfig
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.recipe.validate_algorithm import per_forward

_NAMES = {
    "loss": "loss",
    "rewards/accuracies": "pair_accuracy",
    "rewards/margins": "reward_margin",
    "accuracy": "pair_accuracy",
    "margin": "reward_margin",
    "kl": "kl",
    "grad_norm": "grad_norm",
    "logps/chosen": "chosen_logprob",
    "logps/rejected": "rejected_logprob",
}
"""TRL's names of what is logged, and ours."""


@dataclass(frozen=True)
class Round:
    """What a trainer is to do."""

    model: str
    """The checkpoint that is trained."""
    reference: str
    """The checkpoint that it is held to."""
    first: int
    """Optimiser steps of the run before these."""
    steps: int
    out: str
    """Folder for the checkpoint."""
    number: int = 1
    """From 1; rounds draw their order of pairs from seeds of their own."""


def train_preferences(
    recipe: Recipe, task: Round, judgements: Sequence[Judgement], rendezvous: Rendezvous, report: Progress
) -> dict[str, float]:
    """Train `task.model` on the judgements and write it to `task.out` (rank 0); returns `round_metrics`.

    The log-probs are those of the whole vocabulary at temperature 1, as TRL's. Raises DataError for an answer that the
    backbone cannot write, and what `add_lora` raises.
    """
    trainer, reporter = preference_trainer(recipe, task, judgements, rendezvous, report)
    trainer.train()
    adapter = load_adapter(recipe.backbone.adapter, task.model)
    stage = recipe.learner.zero_stage
    save_whole(trainer, rendezvous, stage, lambda trained: save_merged(adapter, cast(Any, trained), Path(task.out)))
    return round_metrics(reporter.logs)


def preference_trainer(
    recipe: Recipe, task: Round, judgements: Sequence[Judgement], rendezvous: Rendezvous, report: Progress
) -> tuple[Any, Reporter]:
    """The trainer of a round, ready to go, and what it reports to; as `train_preferences`."""
    join_process_group(rendezvous)
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

    algorithm, config = recipe.algorithm, recipe.learner
    assert isinstance(algorithm, PreferenceConfig)
    torch.manual_seed(recipe.seed)
    adapter = load_adapter(recipe.backbone.adapter, task.model)
    items: Sequence[Judgement] = list(opinions(judgements)) if isinstance(algorithm, KTO) else judgements
    shared = arguments(recipe, algorithm, task, rendezvous, rows_per_item=1 if isinstance(algorithm, KTO) else 2)
    collator: Any
    if isinstance(algorithm, KTO):
        singles = [item for item in items if isinstance(item, Opinion)]
        collator = OpinionCollator(adapter, singles, algorithm.train_tokens, algorithm.loss_type == "kto")
        args, kind = KTOConfig(**shared, **kto_arguments(algorithm)), KTOTrainer
    else:
        pairs = [item for item in items if isinstance(item, Pair)]
        collator = PairCollator(adapter, pairs, algorithm.train_tokens)
        args, kind = DPOConfig(**shared, **dpo_arguments(algorithm)), DPOTrainer

    class Trainer(Rows, kind):  # type: ignore[misc, valid-type]
        config, first, total = recipe.learner, task.first, recipe.steps

    dtype = getattr(torch, recipe.backbone.dtype)
    # After the arguments, which tell Transformers to split weights over the ranks as it loads them at ZeRO 3.
    model = adapter.load_model(dtype)
    if config.lora.rank:
        add_lora(adapter, model, config.lora, "learner.lora", recipe.seed)
    freeze(adapter, model, config.freeze_encoder)
    reference = load_adapter(recipe.backbone.adapter, task.reference).load_model(dtype).requires_grad_(False)
    reporter = Reporter(report)
    trainer = Trainer(
        model=model,
        ref_model=reference,
        args=args,
        train_dataset=Dataset.from_dict({"row": order(items, algorithm, task, recipe.seed)}),
        data_collator=collator,
        processing_class=adapter.tokenizer,
        callbacks=[reporter],
    )
    return trainer, reporter


def arguments(
    recipe: Recipe, algorithm: JudgedConfig, task: Round, rendezvous: Rendezvous, rows_per_item: int
) -> dict[str, Any]:
    """Arguments of the trainer of a round. `rows_per_item`: answers of an item of the batch, 2 of a pair."""
    share = algorithm.batch_size // rendezvous.world_size
    rows = per_forward(share, recipe.learner.micro_batch_size // rows_per_item)
    return {
        **common_arguments(
            recipe,
            Path(task.out),
            deepspeed_config(recipe.learner, recipe.backbone.dtype),
            steps=task.steps,
            rows=rows,
            accumulation=share // rows,
            max_grad_norm=recipe.learner.max_grad_norm,
            seed=recipe.seed,
        ),
        **learner_arguments(recipe.learner),
        "logging_steps": 1,
    }


def dpo_arguments(algorithm: PreferenceConfig) -> dict[str, Any]:
    """The loss of DPO or IPO, as TRL's DPOConfig names it."""
    if isinstance(algorithm, IPO):
        return {"loss_type": ["ipo"], "beta": algorithm.beta}
    assert isinstance(algorithm, DPO)
    smoothing = algorithm.label_smoothing
    published = SMOOTHING.get(algorithm.loss_type, 0.0)
    with_sft = algorithm.sft_coef > 0
    return {
        "loss_type": [algorithm.loss_type, *(["sft"] if with_sft else [])],
        "loss_weights": [1.0, *([algorithm.sft_coef] if with_sft else [])],
        "beta": algorithm.beta,
        "label_smoothing": published if smoothing is None else smoothing,
        "discopop_tau": algorithm.discopop_tau,
    }


def kto_arguments(algorithm: KTO) -> dict[str, Any]:
    """The loss of KTO, as TRL's KTOConfig names it."""
    return {
        "loss_type": algorithm.loss_type,
        "beta": algorithm.beta,
        "desirable_weight": algorithm.desirable_weight,
        "undesirable_weight": algorithm.undesirable_weight,
    }


def order(items: Sequence[Judgement], algorithm: JudgedConfig, task: Round, seed: int) -> list[int]:
    """Which item stands where in the batches of a round: passes over all, each a fresh shuffle."""
    durations = [item.prompt.duration for item in items]
    return clip_order(durations, task.steps * algorithm.batch_size, 0.0, seed * 1_000_003 + task.number)


def round_metrics(logs: Logs) -> dict[str, float]:
    """Where a round has ended: means over the last quarter of its optimiser steps, of which one may be chance."""
    last = logs[-max(1, len(logs) // 4) :]
    means = {}
    for trls, ours in _NAMES.items():
        if values := [log[trls] for log in last if trls in log]:
            means[ours] = sum(values) / len(values)
    return means | ({"learning_rate": logs[-1]["learning_rate"]} if logs else {})
