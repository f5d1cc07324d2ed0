"""The rollout engine as a Ray actor: a shell around `RolloutEngine`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
import torch

from policies.mtp.acceptance import Acceptance
from policies.mtp.heads import FOLDER
from policies.weights import WeightUpdate
from rlhf_platform import random_state
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.types import Prompt, Sample
from rollout.engine import RolloutEngine, SamplingSettings


@ray.remote
class RolloutWorker:
    """One vLLM engine, warm when `ready` returns."""

    def __init__(self, recipe: Recipe, model: str) -> None:
        torch.set_num_threads(recipe.rollout.cpus)
        self._recipe, self._model = recipe, model

    def start(self, probe: Sequence[Prompt]) -> None:
        """Load the model and generate once, so that no step pays for compilation."""
        recipe = self._recipe
        self._engine = RolloutEngine(
            recipe.backbone.adapter,
            self._model,
            recipe.backbone.dtype,
            recipe.rollout.max_tokens,
            recipe.rollout.max_sequences,
            recipe.rollout.kv_cache_gib,
            recipe.learner.lora.rank,
            Path(self._model, FOLDER) if recipe.rollout.speculative == "mtp" else None,
            recipe.dialogue.most_turns if recipe.branch == "realtime" else 1,
        )
        self._engine.generate(probe, SamplingSettings(1, 1.0, 2, 0))

    def restart(self, model: str, probe: Sequence[Prompt]) -> None:
        """Serve another checkpoint, from disk."""
        self._engine.close()
        self._model = model
        self.start(probe)

    def generate(self, prompts: Sequence[Prompt], settings: SamplingSettings) -> list[Sample]:
        return self._engine.generate(prompts, settings)

    def load_weights(self, update: WeightUpdate) -> int:
        return self._engine.load_weights(update)

    def load_heads(self, update: WeightUpdate) -> None:
        self._engine.load_heads(update)

    def acceptance(self) -> Acceptance:
        return self._engine.acceptance()

    def random_state(self) -> dict[str, Any]:
        return random_state.capture()

    def set_random_state(self, state: dict[str, Any]) -> None:
        random_state.restore(state)
