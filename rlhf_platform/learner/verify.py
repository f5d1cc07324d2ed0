"""Proof that a saved checkpoint is the policy that was trained: loaded anew in Transformers, scored against samples."""

from collections.abc import Sequence
from pathlib import Path

import torch

from policies.batch import make_batch
from policies.load import load_adapter
from policies.policy import Policy
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.types import Sample


@torch.no_grad()
def checkpoint_difference(recipe: Recipe, path: Path | str, samples: Sequence[Sample]) -> float:
    """Largest |log-prob by Transformers - log-prob in the samples| over all completion tokens.

    In nats, beyond a log-prob of -1 as a share of it. `samples` come from an engine that serves the same checkpoint.
    """
    adapter = load_adapter(recipe.backbone.adapter, path)
    model = adapter.load_model(getattr(torch, recipe.backbone.dtype))
    policy = Policy(adapter, model, recipe.rollout.temperature, freeze_encoder=True).eval()
    largest = 0.0
    for sample in samples:
        batch = make_batch([adapter.encode(sample.prompt)], [0], [sample.tokens], adapter.tokenizer.pad_token_id)
        logprobs, _ = policy(batch)
        served = torch.tensor(sample.logprobs)
        largest = max(largest, float(((logprobs[0] - served).abs() / served.abs().clamp(min=1.0)).max()))
    return largest
