"""A recipe's plan: sizes, memory, work, placement and verdict, put together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf_platform.planning.actors import (
    ActorMemory,
    codec_memory,
    judge_kind,
    judge_memory,
    reward_memory,
    rollout_memory,
)
from rlhf_platform.planning.batches import serves
from rlhf_platform.planning.changes import Proposal, proposals
from rlhf_platform.planning.fits import Capacity, Fit, fit_of
from rlhf_platform.planning.learner import learner_memory
from rlhf_platform.planning.observed import Clips, EarlierRun, clips_of, earlier_run
from rlhf_platform.planning.sizes import Sizes, sizes_of
from rlhf_platform.planning.work import Work, work_of
from rlhf_platform.recipe.rewards import codec_workers, served_judges
from rlhf_platform.recipe.schema import Recipe


@dataclass(frozen=True)
class Plan:
    """All that `rlhf plan` says."""

    recipe: Recipe
    sizes: Sizes
    clips: Clips | None
    """None while the data set is not there."""
    actors: Mapping[str, ActorMemory]
    work: Work
    earlier: EarlierRun | None
    capacity: Capacity
    fit: Fit
    proposals: Sequence[Proposal]
    """Changes after each of which the recipe fits; empty when it does, or when none was found."""

    @property
    def bottleneck(self) -> str:
        """By an earlier run's clock where there is one, else by arithmetic."""
        return self.earlier.bottleneck if self.earlier else self.work.bottleneck


def plan_of(recipe: Recipe, capacity: Capacity, allowed: Callable[[Proposal], bool] = lambda _: True) -> Plan:
    """Plan a recipe on machines of a `capacity`. `allowed`: whether a changed recipe passes the checks.

    Raises RecipeError when the model has no configuration on this machine, DataError when a manifest cannot be read.
    """
    sizes, clips = sizes_of(recipe), clips_of(recipe)
    actors = memory_of(recipe, clips)
    fit = fit_of(recipe, actors, capacity)

    def fits(changed: Recipe) -> bool:
        return not fit_of(changed, memory_of(changed, clips), capacity).problems

    return Plan(
        recipe=recipe,
        sizes=sizes,
        clips=clips,
        actors=actors,
        work=work_of(recipe, sizes, clips),
        earlier=earlier_run(recipe),
        capacity=capacity,
        fit=fit,
        proposals=proposals(recipe, fits, allowed) if fit.problems else (),
    )


def memory_of(recipe: Recipe, clips: Clips | None) -> dict[str, ActorMemory]:
    """Memory of each kind of actor."""
    sizes = sizes_of(recipe)
    learner = learner_memory(recipe, sizes, clips.number if clips else None)
    rollout = {"rollout": rollout_memory(recipe, sizes)} if serves(recipe) else {}
    speaks = {"codec": codec_memory(recipe)} if codec_workers(recipe) else {}
    judges = {judge_kind(judge): judge_memory(judge) for judge in served_judges(recipe)}
    return {**rollout, "learner": learner, "reward": reward_memory(recipe), **speaks, **judges}


def as_json(plan: Plan) -> dict[str, Any]:
    """The plan in plain values: bytes, seconds, tokens, shares."""
    work, earlier = plan.work, plan.earlier
    return {
        "name": plan.recipe.name,
        "parameters": {"total": plan.sizes.parameters, "trainable": plan.sizes.trained, "parts": plan.sizes.total},
        "actors": {
            kind: {"count": actor.count, "device_bytes": dict(actor.device), "host_bytes": dict(actor.host)}
            for kind, actor in plan.actors.items()
        },
        "step": {
            "prompts": work.prompts,
            "samples": work.samples,
            "answers": work.answers,
            "audio_seconds": work.audio_seconds,
            "most_audio_seconds": work.most_audio_seconds,
            "completion_tokens": work.completion_tokens,
            "learner_tokens": work.learner_tokens,
            "optimiser_steps": work.optimiser_steps,
            "sync_bytes": work.sync_bytes,
            "operations": dict(work.arithmetic),
        },
        "bottleneck": plan.bottleneck,
        "earlier_run": earlier
        and {"path": str(earlier.path), "steps": earlier.steps, "seconds": dict(earlier.seconds)},
        "placement": [vars(place) for place in plan.fit.places],
        "rooms": [{**vars(room), "margin": room.margin} for room in plan.fit.rooms],
        "judged": plan.fit.judged,
        "fits": not plan.fit.problems,
        "problems": list(plan.fit.problems),
        "proposals": [[str(change) for change in proposal] for proposal in plan.proposals],
    }
