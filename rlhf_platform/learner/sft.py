"""The warm start: supervised training on transcripts with TRL's SFTTrainer on DeepSpeed, one rank.

In one stage or two: `align` teaches a new adaptor alone, `sft` teaches the rest.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from policies.adapter import PolicyAdapter
from policies.batch import EncodedPrompt, make_batch
from policies.load import load_adapter
from policies.lora import add_lora, is_lora, save_adapter, save_merged
from policies.speaking import SpeechLayout
from rlhf_platform.errors import RecipeError
from rlhf_platform.learner.engine import deepspeed_config
from rlhf_platform.learner.process_group import Rendezvous, join_process_group
from rlhf_platform.learner.trainer import Progress, Reporter, common_arguments, save_whole
from rlhf_platform.recipe.schema import Recipe, SFTConfig
from rlhf_platform.types import Prompt

Stage = Literal["align", "sft"]
"""A stage of the warm start, by the section of the recipe that describes it."""
STAGES: tuple[Stage, ...] = ("align", "sft")
"""In the order in which they run."""

_SHORTEST = 0.2
"""Where the curriculum starts: the shortest fifth of the clips."""


def clip_order(durations: Sequence[float], count: int, curriculum: float, seed: int) -> list[int]:
    """Indices of the `count` clips to train on, in order.

    During the first `curriculum` of them, clips are drawn from a pool that grows from the shortest fifth to all;
    after that, and without a curriculum, each pass over the data is a fresh shuffle.
    """
    rng = random.Random(seed)
    by_length = sorted(range(len(durations)), key=lambda i: durations[i])
    order: list[int] = []
    ramp = int(curriculum * count)
    for position in range(ramp):
        pool = max(1, round(len(by_length) * (_SHORTEST + (1 - _SHORTEST) * position / ramp)))
        order.append(by_length[rng.randrange(pool)])
    while len(order) < count:
        rng.shuffle(by_length)
        order += by_length
    return order[:count]


def course_order(
    durations: Sequence[Sequence[float]], shares: Sequence[float], sft: SFTConfig
) -> list[tuple[int, int]]:
    """(course, clip) of every row to train on: `shares` of the steps of each course, spread evenly, each step of one.

    Each course has a `clip_order` of its own.
    """
    owners, debts = list[int](), [0.0] * len(shares)
    for _ in range(sft.steps):
        debts = [debt + share for debt, share in zip(debts, shares, strict=True)]
        owners.append(max(range(len(debts)), key=lambda course: debts[course]))
        debts[owners[-1]] -= 1
    clips = [
        iter(clip_order(own, owners.count(course) * sft.batch_size, sft.curriculum, sft.seed + course))
        for course, own in enumerate(durations)
    ]
    return [(owner, next(clips[owner])) for owner in owners for _ in range(sft.batch_size)]


class CourseCollator:
    """Rows {"course": c, "row": i} of one course -> inputs by that course's collator."""

    def __init__(self, collators: Sequence[Callable[[Sequence[dict[str, Any]]], dict[str, Tensor]]]) -> None:
        self._collators = collators

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        (course,) = {row["course"] for row in rows}
        return self._collators[course](rows)


class TranscriptCollator:
    """Rows {"row": i} -> padded inputs of the model, with labels on the transcript and its end token only."""

    def __init__(self, adapter: PolicyAdapter, prompts: Sequence[Prompt], spec_augment: bool) -> None:
        self._adapter, self._prompts, self._spec_augment = adapter, prompts, spec_augment
        # A small set is featurised once; a large one is featurised as it comes.
        self._encode = lru_cache(maxsize=8192)(lambda row: adapter.encode(prompts[row]))

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        encoded: list[EncodedPrompt] = [self._encode(row["row"]) for row in rows]
        targets = [self._adapter.target(self._prompts[row["row"]]) for row in rows]
        batch = make_batch(encoded, range(len(rows)), targets, self._adapter.tokenizer.pad_token_id)
        labels = torch.full_like(batch.input_ids, -100)
        for i, (prompt, target) in enumerate(zip(encoded, targets, strict=True)):
            start = len(prompt.token_ids)
            labels[i, start : start + len(target)] = torch.tensor(target)
        if self._spec_augment and batch.features is not None and batch.features_mask is not None:
            batch = replace(batch, features=spec_augment(batch.features, batch.features_mask))
        return self._adapter.model_inputs(batch, labels)


def spec_augment(features: Tensor, mask: Tensor, bands: int = 2, widest: float = 0.15) -> Tensor:
    """Blank `bands` bands of time and of frequency per clip, each up to `widest` of the axis (1904.08779).

    `features` (C, M, F), `mask` (C, F). Blanked to the clip's mean, so that the level stays.
    """
    features = features.clone()
    for padded, frames in zip(features, mask.sum(-1).tolist(), strict=True):
        clip = padded[:, :frames]
        mean = clip.mean()
        for axis, size in enumerate(clip.shape):
            for _ in range(bands):
                width = int(torch.randint(0, max(1, int(widest * size)) + 1, ()))
                start = int(torch.randint(0, max(1, size - width), ()))
                clip.narrow(axis, start, width).fill_(mean)
    return features


@dataclass(frozen=True)
class Course:
    """Rows that are learnt in the form of one branch."""

    adapter: str
    """Name of the layout; with `model` it says in which form."""
    model: str
    """A checkpoint with the same weights as every other course's."""
    prompts: Sequence[Prompt]


def section_of(recipe: Recipe, stage: Stage) -> SFTConfig:
    """The keys of a stage."""
    return recipe.align if stage == "align" else recipe.sft


def freeze(adapter: PolicyAdapter, model: PreTrainedModel, stage: Stage, section: SFTConfig) -> None:
    """Leave trainable what the stage teaches: the adaptor; LoRA and the adaptor; or all, maybe but for the encoder.

    LoRA is put in here. Raises RecipeError when nothing is left, and what `add_lora` raises.
    """
    # Some are never learnt, as the sinusoids of an encoder's positions.
    learnable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if section.lora.rank:
        add_lora(adapter, model, section.lora, f"{stage}.lora", section.seed)
    adaptor_alone = stage == "align" or section.lora.rank > 0
    for name, parameter in model.named_parameters():
        frozen_encoder = section.freeze_encoder and adapter.is_encoder(name)
        wanted = adapter.is_adaptor(name) if adaptor_alone else not frozen_encoder
        parameter.requires_grad_(is_lora(name) or (wanted and name in learnable))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise RecipeError(
            f"{stage}.steps is {section.steps}: this backbone has no adaptor between encoder and decoder to be taught "
            "by itself; set it to 0"
        )


def warm_start(
    recipe: Recipe,
    stage: Stage,
    courses: Sequence[Course],
    rendezvous: Rendezvous,
    out: Path,
    report: Progress,
) -> None:
    """Run a stage and write the result to `out` (rank 0). Raises what `freeze` raises.

    The first of `courses` is the recipe's own, from whose checkpoint it starts; a second has `beside_share` of the
    steps, and what it speaks with goes along with the result.
    """
    join_process_group(rendezvous)
    from datasets import Dataset

    sft = section_of(recipe, stage)
    torch.manual_seed(sft.seed)
    adapters = [load_adapter(course.adapter, course.model) for course in courses]
    shares = [1 - sft.beside_share, sft.beside_share] if len(courses) > 1 else [1.0]
    order = course_order([[p.duration for p in course.prompts] for course in courses], shares, sft)

    args = _arguments(recipe, sft, rendezvous.world_size, out)  # before the model: ZeRO 3 divides it as it is loaded
    learner = adapters[0].load_model(getattr(torch, recipe.backbone.dtype))
    freeze(adapters[0], learner, stage, sft)
    trainer = _trainer_class(sft.autocast)(
        model=learner,
        args=args,
        train_dataset=Dataset.from_list([{"course": course, "row": row} for course, row in order]),
        data_collator=CourseCollator(
            [TranscriptCollator(a, c.prompts, sft.spec_augment) for a, c in zip(adapters, courses, strict=True)]
        ),
        processing_class=adapters[0].tokenizer,
        callbacks=[Reporter(report)],
    )
    trainer.train()

    def save(trained: Any) -> None:
        save_merged(adapters[0], trained, out)
        for layout in filter(None, (SpeechLayout.read(course.model) for course in courses[1:])):
            layout.write(out)
        if sft.lora.rank:
            save_adapter(trained, sft.lora.rank, out / "adapter")

    save_whole(trainer, rendezvous, recipe.learner.zero_stage, save)


def _arguments(recipe: Recipe, sft: SFTConfig, world_size: int, out: Path) -> Any:
    """TRL's arguments for a stage."""
    from trl import SFTConfig as TrainerConfig

    return TrainerConfig(
        **common_arguments(
            recipe,
            out,
            deepspeed_config(recipe.learner, recipe.backbone.dtype),
            steps=sft.steps,
            rows=sft.batch_size // world_size,
            max_grad_norm=sft.max_grad_norm,
            seed=sft.seed,
        ),
        learning_rate=sft.learning_rate,
        lr_scheduler_type={"cosine": "cosine", "constant": "constant_with_warmup"}[sft.schedule],
        warmup_steps=sft.warmup_steps,
        weight_decay=sft.weight_decay,
        optim="adamw_torch",
        adam_beta2=0.98,
        dataset_kwargs={"skip_prepare_dataset": True},
        gradient_checkpointing=False,
        logging_steps=10,
    )


def _trainer_class(autocast: bool) -> Any:
    """TRL's SFTTrainer; with `autocast` its products are computed in bfloat16."""
    from trl import SFTTrainer

    class Trainer(SFTTrainer):
        def compute_loss(self, model: Any, *args: Any, **kwargs: Any) -> Any:
            with torch.autocast(model.device.type, torch.bfloat16, enabled=autocast):
                return super().compute_loss(model, *args, **kwargs)

    return Trainer
