"""What may change in a recipe when its run goes on, and what may not."""

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import OmegaConf

from rlhf_platform.recipe.schema import Recipe

_FREE = (
    "runs_dir",
    "cache_dir",
    "cluster",
    "tracking",
    "checkpoint",
    "monitors",
    "scoring.max_failure_rate",
    "scoring.failure_window",
    "evaluation.bootstrap_samples",
    "evaluation.confidence",
    "evaluation.every",
)
"""Where a run lives, how long it waits and what it keeps: none of it is in the policy."""
_FREE_OF_A_REWARD = (
    *("timeout", "retries", "concurrency", "batch_size", "on_failure", "max_memory", "recycle_after", "cpus", "gpus"),
    *("cache", "token_env"),
)
"""How a reward is called, not what it says."""


def may_change(key: str) -> bool:
    """Whether a run may go on with another value of `key`; `steps` may too, under a constant learning rate."""
    return any(key == free or key.startswith((f"{free}.", f"{free}[")) for free in _FREE)


def refused_changes(before: str, after: str, recipe: Recipe) -> list[str]:
    """One line per key that differs between two recipes as YAML and may not. `recipe`: the one after."""
    old, new = (_kept(dict(flattened(OmegaConf.to_container(OmegaConf.create(text))))) for text in (before, after))
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key) and not may_change(key)]
    lines = []
    for key in changed:
        if key == "steps" and recipe.learner.schedule == "constant":
            continue
        falls = f"; learner.schedule={recipe.learner.schedule} falls to 0 at the last step, which is decided"
        why = falls if key == "steps" else ""
        lines.append(f"{key} was {old.get(key)!r}, is {new.get(key)!r}: the run was begun with the first{why}")
    return lines


def _kept(leaves: dict[str, Any]) -> dict[str, Any]:
    """The leaves without the keys of rewards that may change."""
    for section in ("rewards", "evaluation.rewards"):
        rewards = leaves.get(section) or []
        leaves[section] = [{k: v for k, v in each.items() if k not in _FREE_OF_A_REWARD} for each in rewards]
    return leaves


def flattened(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a recipe's mapping by full name; a list is one value."""
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
