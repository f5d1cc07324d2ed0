"""A Bradley-Terry reward model with margins and ties, with TRL's RewardTrainer on DeepSpeed, one rank."""

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from policies.load import load_adapter
from policies.lora import add_lora
from policies.policy import freeze
from policies.reward_model import RewardModel as Model
from policies.reward_model import freeze_head_of_vocabulary
from rlhf_platform.algorithms.bradley_terry import BINS, calibration_counts, calibration_error, comparison_loss
from rlhf_platform.data.pairs import Judgement, Pair
from rlhf_platform.learner.collators import ComparisonCollator
from rlhf_platform.learner.preference import Round, arguments, order, round_metrics
from rlhf_platform.learner.process_group import Rendezvous, join_process_group, over_ranks
from rlhf_platform.learner.trainer import Progress, Reporter, Rows, save_whole
from rlhf_platform.recipe.preferences import RewardModel
from rlhf_platform.recipe.schema import Recipe


def split_pairs(pairs: Sequence[Pair], share: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Pairs to learn from and pairs to measure on, which have about `share` of the prompts and none in common."""
    prompts = sorted({pair.prompt.id for pair in pairs})
    held_out = set(random.Random(seed).sample(prompts, min(round(share * len(prompts)), len(prompts) - 1)))
    return (
        [pair for pair in pairs if pair.prompt.id not in held_out],
        [pair for pair in pairs if pair.prompt.id in held_out],
    )


class Comparisons(Rows):
    """To be put before TRL's RewardTrainer: its loss, with ties."""

    algorithm: RewardModel
    _metrics: Any
    accelerator: Any
    model: Any

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, **_: Any) -> Any:
        margin, tie = inputs["margin"] * self.algorithm.margin_coef, inputs["tie"]
        outputs = model(**inputs)
        chosen, rejected = outputs.logits.squeeze(-1).float().chunk(2)
        loss = comparison_loss(
            chosen - rejected, margin, tie, self.algorithm.tie_threshold, self.algorithm.label_smoothing
        ).mean()
        loss = loss + self.algorithm.center_coef * (chosen + rejected).square().mean()
        difference = self.accelerator.gather((chosen - rejected).detach())
        decided = ~self.accelerator.gather(tie)
        metrics = self._metrics["train" if self.model.training else "eval"]
        if decided.any():
            metrics["accuracy"].append((difference > 0)[decided].float().mean().item())
            metrics["margin"].append(difference[decided].mean().item())
        return (loss, outputs) if return_outputs else loss


def train_reward_model(
    recipe: Recipe, task: Round, judgements: Sequence[Judgement], rendezvous: Rendezvous, report: Progress
) -> dict[str, float]:
    """Train a reward model that begins as `task.model` and write it to `task.out` (rank 0).

    Returns `round_metrics`, and of the pairs kept out of training, ties aside, `heldout_pair_accuracy`, the share whose
    chosen answer has the larger reward, and `heldout_calibration_error`. Raises what `train_preferences` raises.
    """
    join_process_group(rendezvous)
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    algorithm, config = recipe.algorithm, recipe.learner
    assert isinstance(algorithm, RewardModel)
    torch.manual_seed(recipe.seed)
    adapter = load_adapter(recipe.backbone.adapter, task.model)
    pairs = [item for item in judgements if isinstance(item, Pair)]
    learnt, held_out = split_pairs(pairs, algorithm.heldout_share, recipe.seed)
    shared = arguments(recipe, algorithm, task, rendezvous, rows_per_item=2)
    args = RewardConfig(**shared | {"gradient_checkpointing": False})  # ours is not Transformers' switch

    class Trainer(Comparisons, RewardTrainer):
        config, first, total = recipe.learner, task.first, recipe.steps

    Trainer.algorithm = algorithm
    # After the arguments, which tell Transformers to split weights over the ranks as it loads them at ZeRO 3.
    backbone = adapter.load_model(getattr(torch, recipe.backbone.dtype))
    if config.lora.rank:
        add_lora(adapter, backbone, config.lora, "learner.lora", recipe.seed)
    freeze(adapter, backbone, config.freeze_encoder)
    freeze_head_of_vocabulary(backbone)
    model = Model(adapter, backbone, recipe.seed)
    if config.activation_checkpointing:
        model.checkpoint_activations()
    reporter = Reporter(report)
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=Dataset.from_dict({"row": order(learnt, algorithm, task, recipe.seed)}),
        data_collator=ComparisonCollator(adapter, learnt),
        processing_class=adapter.tokenizer,
        callbacks=[reporter],
    )
    trainer.train()
    metrics = round_metrics(reporter.logs)
    if any(not pair.tie for pair in held_out):
        collator = ComparisonCollator(adapter, held_out)
        counts = held_out_counts(trainer, collator, len(held_out), rendezvous)
        found, _, right = counts.sum(0).tolist()
        metrics["heldout_pair_accuracy"] = right / found
        metrics["heldout_calibration_error"] = calibration_error(counts)
    layout, out = recipe.backbone.adapter, Path(task.out)
    save_whole(trainer, rendezvous, config.zero_stage, lambda model: cast(Model, model).save(layout, out))
    return metrics


@torch.no_grad()
def held_out_counts(trainer: Any, collator: ComparisonCollator, pairs: int, rendezvous: Rendezvous) -> Tensor:
    """`calibration_counts` of the collator's pairs, ties aside, over all ranks."""
    model = trainer.model_wrapped
    model.eval()
    rows, ranks = trainer.args.per_device_train_batch_size, rendezvous.world_size
    mine = range(rendezvous.rank, pairs, ranks)
    counts = torch.zeros(BINS, 3)
    # All ranks make as many forwards, since at ZeRO 3 they gather the weights together: some see a pair twice.
    for number in range(math.ceil(math.ceil(pairs / ranks) / rows)):
        part = mine[number * rows : (number + 1) * rows]
        inputs = trainer._prepare_inputs(collator([{"row": row} for row in part or [0]]))
        chosen, rejected = model(**inputs).logits.squeeze(-1).chunk(2)
        if part:
            counts += calibration_counts((chosen - rejected)[~inputs["tie"]].float()).cpu()
    return over_ranks(counts)
