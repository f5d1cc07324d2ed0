"""What the KL is to: the warm start, or the policy of an earlier step."""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from policies.adapter import PolicyAdapter
from policies.batch import PolicyBatch
from policies.lora import without_lora
from policies.policy import Policy
from rlhf_platform.learner.engine import Engine
from rlhf_platform.recipe.algorithms import OnlineConfig
from rlhf_platform.recipe.schema import Recipe

_FILE = "reference.safetensors"


class Reference:
    """A frozen copy; with LoRA the policy itself without it, so that no copy is kept."""

    def __init__(self, engine: Engine, frozen: Policy | None, moves: bool, zero_stage: int) -> None:
        self._engine, self._frozen, self._moves, self._zero_stage = engine, frozen, moves, zero_stage

    @classmethod
    def of(cls, recipe: Recipe, adapter: PolicyAdapter, engine: Engine) -> "Reference | None":
        """The recipe's, or None where no KL is asked for. `engine`: the policy's."""
        algorithm, learner = recipe.algorithm, recipe.learner
        assert isinstance(algorithm, OnlineConfig)
        if algorithm.kl_coef == 0:
            return None
        frozen = None
        if not learner.lora.rank:
            model = adapter.load_model(getattr(torch, recipe.backbone.dtype))
            frozen = Policy(adapter, model, recipe.rollout.temperature, freeze_encoder=True)
            frozen = frozen.eval().requires_grad_(False).to(engine.device)
        return cls(engine, frozen, algorithm.reference_every > 0, learner.zero_stage)

    @torch.no_grad()
    def __call__(self, batch: PolicyBatch, audio: Sequence[Tensor] | None) -> Tensor:
        """Log-probs of the completion tokens, (B, T), in nats."""
        if self._frozen is not None:
            found: Tensor = self._frozen(batch, audio)[0]
            return found
        with without_lora(self._engine.module):
            found = self._engine(batch, audio)[0]
        return found

    @property
    def trunk(self) -> PreTrainedModel | None:
        """The frozen model, for others to look through; None where it would move, or be torn apart by their ZeRO 3."""
        alone = self._frozen is None or self._moves or self._zero_stage == 3
        return None if alone or self._frozen is None else self._frozen.model

    @torch.no_grad()
    def become(self, policy: Policy) -> None:
        """Take the policy's weights. Every rank must call it: at ZeRO 3 they gather together."""
        import deepspeed

        assert self._frozen is not None
        theirs = list(policy.model.parameters())
        with deepspeed.zero.GatheredParameters(theirs, enabled=self._zero_stage == 3):
            for ours, weight in zip(self._frozen.model.parameters(), theirs, strict=True):
                ours.copy_(weight)

    def save(self, path: Path, rank: int) -> None:
        """Keep a reference that moves; the warm start is on disk as it is."""
        if self._moves and self._frozen is not None and rank == 0:
            weights = {name: p.detach().cpu().contiguous() for name, p in self._frozen.model.named_parameters()}
            save_file(weights, path / _FILE)

    @torch.no_grad()
    def load(self, path: Path) -> None:
        if self._moves and self._frozen is not None:
            for name, weight in load_file(path / _FILE).items():
                self._frozen.model.get_parameter(name).copy_(weight)
