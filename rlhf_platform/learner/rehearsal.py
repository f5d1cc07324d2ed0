"""Supervised samples beside those of RL in one optimiser step (`rlhf_platform.algorithms.rehearsal`)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from policies.adapter import PolicyAdapter
from policies.batch import PolicyBatch
from rlhf_platform.algorithms.rehearsal import rehearsal_loss
from rlhf_platform.learner.clips import Clips
from rlhf_platform.learner.micro_batches import packed
from rlhf_platform.learner.process_group import over_ranks
from rlhf_platform.recipe.schema import LearnerConfig
from rlhf_platform.types import Prompt, Sample, StopReason

Part = tuple[PolicyBatch, list[Tensor] | None]
"""A micro-batch, and the encoder output of its clips where it is kept."""


def reference_sample(adapter: PolicyAdapter, prompt: Prompt) -> Sample:
    """The reference as if the policy had said it."""
    tokens = adapter.target(prompt)
    return Sample(prompt, tokens, (0.0,) * len(tokens), prompt.reference, StopReason.EOS, 0)


class Rehearsal:
    """What one optimiser step rehearses on this rank. Its parts are given to `Engine.update` beside RL's."""

    def __init__(self, samples: Sequence[Sample], clips: Clips, config: LearnerConfig, weight: float) -> None:
        """`samples`: as many on every rank, at least one. `weight`: of their loss beside RL's."""
        self.parts: list[Part] = [
            clips.batch([samples[row] for row in rows], config.packing) for rows in packed(samples, clips, config)
        ]
        self._weight = weight
        self._tokens = over_ranks(torch.stack([batch.completion_mask.sum() for batch, _ in self.parts]).sum())
        self._seen = torch.zeros_like(self._tokens, dtype=torch.float32)

    def loss(self, policy: Callable[..., Any], part: Part) -> Tensor:
        """The weighted share of a part, a scalar; those of all parts and ranks add up to the mean over tokens (law 5).

        `policy`: as `policies.policy.Policy`, on DeepSpeed or not.
        """
        batch, audio = part
        logprobs, _ = policy(batch, audio)
        loss = rehearsal_loss(logprobs, batch.completion_mask, self._tokens)
        self._seen += loss.detach()
        return self._weight * loss

    def mean(self) -> float:
        """Nats per token over all ranks, of the parts that were asked for."""
        return float(over_ranks(self._seen))
