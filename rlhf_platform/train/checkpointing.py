"""A run's whole state, to a checkpoint and back (law 7)."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf_platform import random_state
from rlhf_platform.data.sampler import PromptSampler
from rlhf_platform.errors import RunError
from rlhf_platform.recipe.schema import CheckpointConfig
from rlhf_platform.tracking.checkpoints import Checkpoint, Checkpoints
from rlhf_platform.train.team import Team


def save(
    checkpoints: Checkpoints, config: CheckpointConfig, team: Team, sampler: PromptSampler, run: Mapping[str, Any]
) -> Path:
    """Write a checkpoint after a step, and remove those that the recipe does not keep; returns its folder.

    `run`: the `step`, its `score`, the `recipe` as YAML, and what else has to be there when it goes on. Between two
    steps no sample is under way, so there is no queue to keep.
    """
    step, recipe = run["step"], run["recipe"]
    with checkpoints.writing(step, run["score"]) as draft:
        team.learners.save(draft / "policy")
        state = dict(run) | {
            "weight_version": step,
            "recipe": hashlib.sha256(recipe.encode()).hexdigest(),
            "sampler": sampler.state(),
            "random": random_state.capture(),
            "actors": team.state(draft / "learner"),
        }
        (draft / "recipe.yaml").write_text(recipe, "utf-8")
        (draft / "state.json").write_text(json.dumps(state))
    checkpoints.prune(config)
    return draft.with_name(f"step-{step:05d}")


def started_from(checkpoint: Checkpoint, data: str) -> str:
    """The model that the run began with, whose frozen weights and reference it still needs.

    `data`: digest of the manifest now. Raises RunError when the model is gone, or the data are others.
    """
    state = checkpoint.state()
    model = str(state["start_checkpoint"])
    if Path(model).is_absolute() and not Path(model, "config.json").is_file():
        raise RunError(f"{checkpoint.path}: {model}, which the run began with, is gone; bring it back, or start anew")
    if state["data"] != data:
        raise RunError(f"{checkpoint.path}: the manifest is not the one the run began with; bring that back")
    return model


def restore(checkpoint: Checkpoint, team: Team, sampler: PromptSampler, drafts: bool) -> None:
    """Put actors, sampler and generators where the checkpoint found them. Raises DataError for other prompts.

    `drafts`: whether there are heads, which the rollout workers have as they were before RL.
    """
    state = checkpoint.state()
    sampler.load(state["sampler"])
    team.load_state(checkpoint.learner, state["actors"])
    if drafts:
        team.rollouts.load_heads(team.learners.heads(checkpoint.step))
    random_state.restore(state["random"])


def score(config: CheckpointConfig, history: Sequence[Mapping[str, float]]) -> float:
    """How good the policy is after the latest step by `checkpoint.best_by`; the higher, the better."""
    if config.best_by == "heldout_wer":
        return -history[-1].get("heldout_wer", float("inf"))  # a monitor may stop a run at a step between evaluations
    rewards = [metrics["reward"] for metrics in history[-config.every :] if metrics["reward"] == metrics["reward"]]
    return sum(rewards) / len(rewards) if rewards else float("-inf")
