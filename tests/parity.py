"""Transformers' log-probs against the engine's: what every test of a served layout asks."""

import torch

from policies.adapter import PolicyAdapter
from policies.batch import make_batch
from policies.policy import Policy
from rlhf_platform.types import Sample

TOLERANCE = 1e-4
"""Nats; in float32 what is left is rounding."""


@torch.no_grad()
def largest_difference(adapter: PolicyAdapter, policy: Policy, samples: list[Sample]) -> float:
    """Log-probs by Transformers, one sample at a time, against those in the samples."""
    largest = 0.0
    for sample in samples:
        batch = make_batch([adapter.encode(sample.prompt)], [0], [sample.tokens], adapter.tokenizer.pad_token_id)
        largest = max(largest, float((policy(batch)[0][0] - torch.tensor(sample.logprobs)).abs().max()))
    return largest
