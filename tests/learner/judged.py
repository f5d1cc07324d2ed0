"""A round of judged answers as the actors run it, in processes of its own, and float64 log-probs to compare with."""

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp

from policies.adapter import PolicyAdapter
from policies.batch import make_batch
from policies.load import load_adapter
from rlhf_platform.data.pairs import Answer, Judgement, Pair
from rlhf_platform.learner import preference, reward_model
from rlhf_platform.learner.engine import deepspeed_config
from rlhf_platform.learner.preference import Round, train_preferences
from rlhf_platform.learner.process_group import Rendezvous, free_port, join_process_group
from rlhf_platform.learner.reward_model import train_reward_model
from rlhf_platform.recipe.algorithms import AlgorithmConfig
from rlhf_platform.recipe.preferences import RewardModel
from rlhf_platform.recipe.schema import LearnerConfig, Recipe
from rlhf_platform.types import Prompt

WRONG = ("alpha bravo", "seven", "nine two charlie delta", "echo")
"""A wrong transcript of each of `tests.tiny.TEXTS`."""


def pairs_of(clips: Sequence[Prompt], **more: Any) -> list[Pair]:
    """The reference of each clip against a wrong one."""
    judged = zip(clips, WRONG, strict=True)
    return [Pair(i, clip, Answer(clip.reference), Answer(wrong), **more) for i, (clip, wrong) in enumerate(judged, 1)]


def recipe_of(algorithm: AlgorithmConfig, steps: int = 1, **learner: Any) -> Recipe:
    settings = {"learning_rate": 1e-3, "freeze_encoder": False} | learner
    return Recipe(name="test", steps=steps, algorithm=algorithm, learner=LearnerConfig(**settings))


@dataclass(frozen=True)
class Case:
    """A round, and what it learns from."""

    recipe: Recipe
    task: Round
    judgements: Sequence[Judgement]


def _run(rank: int, port: int, cases: Mapping[str, Case], said: Path) -> None:
    from accelerate.state import AcceleratorState

    torch.set_num_threads(1)
    ranks = next(iter(cases.values())).recipe.learner.workers
    meeting = Rendezvous(rank, ranks, "127.0.0.1", port, 120)
    join_process_group(meeting)
    # DeepSpeed remembers the groups that it once met in, so that all cases have one.
    preference.join_process_group = reward_model.join_process_group = lambda rendezvous: None
    found = {}
    for name, case in cases.items():
        recipe, losses = case.recipe, list[float]()
        # DeepSpeed leaves parameters as small as these whole at ZeRO 3 unless told otherwise.
        split = {"zero_optimization": {"stage": recipe.learner.zero_stage, "stage3_param_persistence_threshold": 0}}
        preference.deepspeed_config = lambda learner, dtype, split=split: deepspeed_config(learner, dtype) | split
        train = train_reward_model if isinstance(recipe.algorithm, RewardModel) else train_preferences
        metrics = train(recipe, case.task, case.judgements, meeting, lambda step, loss, to=losses: to.append(loss))
        found[name] = (losses, metrics)
        AcceleratorState._reset_state(reset_partial_state=True)
        gc.collect()
    torch.distributed.destroy_process_group()
    if rank == 0:
        torch.save(found, said)


def trained(cases: Mapping[str, Case], said: Path) -> dict[str, tuple[list[float], dict[str, float]]]:
    """Of each case the loss before each optimiser step, and the round's metrics; all cases on as many ranks."""
    ranks = {case.recipe.learner.workers for case in cases.values()}
    mp.spawn(_run, (free_port(), cases, said), nprocs=ranks.pop(), join=True)
    return dict(torch.load(said))


def logprobs(adapter: PolicyAdapter, model: Any, prompt: Prompt, tokens: Sequence[int]) -> torch.Tensor:
    """Of each token of a completion, (T,) in float64, by the model's own forward on this one alone."""
    encoded = adapter.encode(prompt)
    batch = make_batch([encoded], [0], [tuple(tokens)], adapter.tokenizer.pad_token_id)
    inputs = adapter.model_inputs(batch, torch.full_like(batch.input_ids, -100))
    del inputs["labels"]
    if "input_features" in inputs:
        inputs["input_features"] = inputs["input_features"].double()
    with torch.no_grad():
        found = model(**inputs).logits[0].log_softmax(-1)
    start = len(encoded.token_ids)
    return torch.stack([found[start + i - 1, token] for i, token in enumerate(tokens)])


def in_float64(layout: str, path: Path) -> tuple[PolicyAdapter, Any]:
    adapter = load_adapter(layout, path)
    return adapter, adapter.load_model(torch.float64).eval()
