"""A round of judged answers as the actors run it, in processes of its own, and float64 log-probs to compare with."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp

from policies.adapter import PolicyAdapter
from policies.load import load_adapter
from rlhf_platform.data.pairs import Answer, Judgement, Pair
from rlhf_platform.learner import preference
from rlhf_platform.learner.engine import deepspeed_config
from rlhf_platform.learner.preference import Round
from rlhf_platform.learner.process_group import Rendezvous, free_port
from rlhf_platform.recipe.algorithms import AlgorithmConfig
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


def _train(
    rank: int, port: int, run: Callable[..., Any], recipe: Recipe, task: Round, judgements: Sequence[Judgement]
) -> None:
    torch.set_num_threads(1)
    losses: list[float] = []
    # DeepSpeed leaves parameters as small as these whole at ZeRO 3 unless told otherwise.
    split = {"zero_optimization": {"stage": recipe.learner.zero_stage, "stage3_param_persistence_threshold": 0}}
    preference.deepspeed_config = lambda learner, dtype: deepspeed_config(learner, dtype) | split
    meeting = Rendezvous(rank, recipe.learner.workers, "127.0.0.1", port, 120)
    metrics = run(recipe, task, judgements, meeting, lambda step, loss: losses.append(loss))
    if rank == 0:
        torch.save((losses, metrics), f"{task.out}.said")
    torch.distributed.destroy_process_group()


def trained(
    run: Callable[..., Any], recipe: Recipe, task: Round, judgements: Sequence[Judgement]
) -> tuple[list[float], dict[str, float]]:
    """The loss before each optimiser step, and the round's metrics."""
    Path(task.out).parent.mkdir(parents=True, exist_ok=True)
    mp.spawn(_train, (free_port(), run, recipe, task, judgements), nprocs=recipe.learner.workers, join=True)
    losses, metrics = torch.load(f"{task.out}.said")
    return list(losses), dict(metrics)


def logprobs(adapter: PolicyAdapter, model: Any, prompt: Prompt, tokens: Sequence[int]) -> torch.Tensor:
    """Of each token of a completion, (T,) in float64, by the model's own forward on this one alone."""
    from policies.batch import make_batch

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
