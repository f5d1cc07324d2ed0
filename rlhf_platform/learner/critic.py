"""The critic's trainer, one rank, in the process of the policy's."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from policies.adapter import PolicyAdapter
from policies.critic import Critic
from rlhf_platform.algorithms.value_loss import clipped_value_loss
from rlhf_platform.learner.engine import Engine
from rlhf_platform.learner.measures import Measures
from rlhf_platform.learner.micro_batches import MicroBatch
from rlhf_platform.learner.process_group import Rendezvous, over_ranks
from rlhf_platform.learner.reference import Reference
from rlhf_platform.recipe.algorithms import PPO
from rlhf_platform.recipe.schema import Recipe

_STATE_TAG = "critic"


class CriticLearner:
    """A value head on a copy of the warm start, or on the frozen trunk of the reference (`algorithm.critic`)."""

    def __init__(
        self, recipe: Recipe, adapter: PolicyAdapter, reference: Reference | None, rendezvous: Rendezvous
    ) -> None:
        assert isinstance(recipe.algorithm, PPO)
        self._algorithm: PPO = recipe.algorithm
        trunk = recipe.algorithm.critic == "trunk"
        shared = reference.trunk if trunk and reference else None
        model = adapter.load_model(getattr(torch, recipe.backbone.dtype)) if shared is None else shared
        # All ranks must draw the same head.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            critic = Critic(adapter, model, recipe.learner.freeze_encoder, trunk).eval()
        if recipe.learner.activation_checkpointing and not trunk:
            critic.checkpoint_activations()
        rate = self._algorithm.critic_learning_rate
        self._engine = Engine(critic, recipe.learner, recipe.backbone.dtype, rendezvous, lambda _: rate)
        self.trainable_parameters = self._engine.trainable_parameters

    @torch.no_grad()
    def values(self, micro: MicroBatch) -> Tensor:
        """What is to be expected before each completion token, (B, T), in units of the reward."""
        found: Tensor = self._engine(micro.batch, micro.audio)
        return found

    def update(self, minibatch: Sequence[MicroBatch], measures: Measures) -> None:
        """One optimiser step towards the returns; the loss is a mean over the tokens of all ranks (law 5)."""
        tokens = over_ranks(torch.stack([micro.mask.sum() for micro in minibatch]).sum()).clamp(min=1.0)

        def loss_of(micro: MicroBatch) -> Tensor:
            assert micro.values is not None
            assert micro.returns is not None
            values = self._engine(micro.batch, micro.audio)
            loss, clipped = clipped_value_loss(values, micro.values, micro.returns, self._algorithm.value_clip)
            measures.critic(micro, loss, clipped)
            return (loss * micro.mask).sum() / tokens

        measures.gradient("critic_grad_norm", self._engine.update(minibatch, loss_of))

    def save_state(self, path: Path) -> None:
        self._engine.save_state(path, _STATE_TAG, {})

    def load_state(self, path: Path) -> None:
        self._engine.load_state(path, _STATE_TAG)
