"""Whether a recipe's actors fit on a cluster: which actor goes where, and what each machine and GPU has left."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlhf_platform.planning.actors import DRIVER, ActorMemory, judge_kind
from rlhf_platform.planning.batches import serves
from rlhf_platform.planning.units import gib
from rlhf_platform.recipe.rewards import codec_workers, light_cores, reward_reservation, served_judges
from rlhf_platform.recipe.schema import Recipe

LOCAL_STORE = 512 * 2**20
"""Bytes of Ray's object store in a cluster of this machine alone (`rlhf_platform.train.cluster`)."""


@dataclass(frozen=True)
class Capacity:
    """Machines that are alike. None: not known, and not judged."""

    nodes: int
    gpus: int
    """Per machine."""
    gpu_memory: int | None
    """Bytes of each GPU."""
    cpus: float | None
    """Cores per machine."""
    memory: int | None
    """Bytes of each machine."""
    given: bool
    """Whether it was asked about; else it is this machine and the recipe's `cluster`."""


@dataclass(frozen=True)
class Place:
    """Where one actor goes; `node` is None when there is no place."""

    kind: str
    index: int
    node: int | None
    gpu: int | None
    cpus: float


@dataclass(frozen=True)
class Room:
    """What something has and what is asked of it, bytes."""

    what: str
    has: int
    needs: int

    @property
    def margin(self) -> float:
        """Share that is left; negative when it does not fit."""
        return 1 - self.needs / self.has

    @property
    def fits(self) -> bool:
        return self.needs <= self.has


@dataclass(frozen=True)
class Fit:
    """The verdict: everything that does not fit is in `problems`."""

    places: Sequence[Place]
    rooms: Sequence[Room]
    problems: Sequence[str]

    @property
    def judged(self) -> bool:
        """Whether there was anything to compare with."""
        return bool(self.rooms)


def this_machine(recipe: Recipe) -> Capacity:
    """The machine that this runs on, with the cores and GPUs that the recipe's own cluster would have."""
    light = light_cores(recipe)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Capacity(1, recipe.cluster.gpus, None, recipe.cluster.cpus + light, memory, given=False)


def unknown_cluster(recipe: Recipe) -> Capacity:
    """A cluster that the recipe joins and nothing is said of: it has what is asked for."""
    gpus = _rollout_workers(recipe) * recipe.rollout.gpus + recipe.learner.workers * recipe.learner.gpus
    gpus += recipe.scoring.workers * math.ceil(reward_reservation(recipe)[1])
    gpus += sum(judge.gpus for judge in served_judges(recipe))
    return Capacity(1, gpus, None, None, None, given=False)


def fit_of(recipe: Recipe, actors: Mapping[str, ActorMemory], capacity: Capacity) -> Fit:
    """Place all actors, then add up what each GPU and machine holds."""
    places = placed(recipe, capacity)
    problems = []
    missing = [place for place in places if place.node is None]
    if missing:
        kinds = {kind: sum(place.kind == kind for place in missing) for kind in dict.fromkeys(p.kind for p in missing)}
        lacking = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
        problems.append(f"no place for {lacking}: {_wanted(places)}, there are {_there(capacity)}")
    rooms = [*_device_rooms(actors, capacity), *_host_rooms(actors, capacity, places)]
    for room in rooms:
        if not room.fits:
            problems.append(f"{room.what} needs {gib(room.needs)} GiB and has {gib(room.has)} GiB")
    return Fit(places, rooms, problems)


def placed(recipe: Recipe, capacity: Capacity) -> list[Place]:
    """Actors in the order of a run, each on the first machine that has the cores and the GPU it reserves."""
    cores = [math.inf if capacity.cpus is None else capacity.cpus] * capacity.nodes
    gpus = [list(range(capacity.gpus)) for _ in range(capacity.nodes)]
    rollout, learner, scoring = recipe.rollout, recipe.learner, recipe.scoring
    wanted: list[tuple[str, int, float, int]] = []
    wanted += [("rollout", i, rollout.cpus, rollout.gpus) for i in range(_rollout_workers(recipe))]
    wanted += [("learner", i, learner.cpus, learner.gpus) for i in range(learner.workers)]
    places = []
    of_rewards = reward_reservation(recipe)
    wanted += [("reward", i, of_rewards[0], math.ceil(of_rewards[1])) for i in range(scoring.workers)]
    wanted += [("codec", i, recipe.speech.cpus, 0) for i in range(codec_workers(recipe))]
    wanted += [(judge_kind(judge), 0, judge.cpus, judge.gpus) for judge in served_judges(recipe)]
    for kind, index, cpus, gpu in wanted:
        found = next((n for n in range(capacity.nodes) if cores[n] >= cpus - 1e-9 and len(gpus[n]) >= gpu), None)
        place = Place(kind, index, found, None, cpus)
        if found is not None:
            cores[found] -= cpus
            taken = [gpus[found].pop(0) for _ in range(gpu)]
            place = Place(kind, index, found, taken[0] if taken else None, cpus)
        places.append(place)
    return places


def _rollout_workers(recipe: Recipe) -> int:
    return recipe.rollout.workers if serves(recipe) else 0


def _device_rooms(actors: Mapping[str, ActorMemory], capacity: Capacity) -> list[Room]:
    if capacity.gpu_memory is None:
        return []
    on_gpu = [actor for actor in actors.values() if actor.device]
    return [Room(f"the GPU of a {actor.kind} actor", capacity.gpu_memory, actor.on_device) for actor in on_gpu]


def _host_rooms(actors: Mapping[str, ActorMemory], capacity: Capacity, places: Sequence[Place]) -> list[Room]:
    if capacity.memory is None:
        return []
    needs = [0] * capacity.nodes
    needs[0] = DRIVER + (0 if capacity.given else LOCAL_STORE)
    for place in places:
        if place.node is not None:
            needs[place.node] += actors[place.kind].on_host
    return [Room(f"the memory of machine {node}", capacity.memory, need) for node, need in enumerate(needs)]


def _wanted(places: Sequence[Place]) -> str:
    return f"all actors reserve {sum(place.cpus for place in places):g} cores"


def _there(capacity: Capacity) -> str:
    cores = "cores not said" if capacity.cpus is None else f"{capacity.cpus:g} cores"
    each = f"{cores} and {capacity.gpus} GPUs" if capacity.gpus else cores
    return each if capacity.nodes == 1 else f"{capacity.nodes} machines with {each} each"
