"""Ray for one run: a local cluster of its own, or one that is running; a placement group; actors in it."""

import logging
import os
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray._private import ray_constants
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from rlhf_platform.errors import ClusterError, WaitTimeout
from rlhf_platform.recipe.rewards import codec_workers, light_cores, reward_reservation, served_judges
from rlhf_platform.recipe.schema import ClusterConfig, Recipe
from rlhf_platform.train import PROCESS_ENVIRONMENT


@contextmanager
def cluster(recipe: Recipe) -> Iterator[None]:
    """Ray, connected; shut down with all its processes afterwards when it was started here.

    Raises ClusterError or WaitTimeout when `cluster.address` does not answer.
    """
    address = recipe.cluster.address or os.environ.get("RAY_ADDRESS")
    # Ray warns that it turned token authentication on, which is what we want.
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address:
        _join(address, recipe.cluster)
    else:
        _start_local(recipe)
    try:
        yield
    finally:
        ray.shutdown()


def _start_local(recipe: Recipe) -> None:
    """A cluster of this machine alone, all of whose sockets are on loopback (law 10).

    On Linux Ray takes the machine's outer address even when told 127.0.0.1, and then listens on every interface. The
    switch that makes it stay on loopback is the one it has for Windows and macOS.
    """
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
    ray.init(
        num_cpus=recipe.cluster.cpus + light_cores(recipe),
        num_gpus=recipe.cluster.gpus,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        object_store_memory=512 * 2**20,
        # A step's prompts, samples and answers: on one machine they need no trip through the object store.
        _system_config={"max_direct_call_object_size": 2**20},
        logging_level="WARNING",
        log_to_driver=False,
    )


def _join(address: str, config: ClusterConfig) -> None:
    key = f"cluster.address is {address}"
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address not in ("auto", "local"):
        if not host or not port.isdigit():
            raise ClusterError(f"{key}: allowed are auto, host:port and ray://host:port")
        try:
            socket.create_connection((host, int(port)), timeout=config.connect_timeout).close()
        except OSError as error:
            raise ClusterError(
                f"{key}: nothing answers there ({error.strerror or error}); start Ray, or leave the key out to run here"
            ) from None
    # What listens there may still not be Ray, and ray.init has no bound of its own.
    outcome: list[BaseException | None] = []

    def connect() -> None:
        try:
            ray.init(address=address, logging_level="WARNING", log_to_driver=False)
            outcome.append(None)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            outcome.append(error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(config.connect_timeout)
    if not outcome:
        raise WaitTimeout("the run", f"Ray at {address} (cluster.address)", config.connect_timeout)
    if outcome[0] is not None:
        raise ClusterError(f"{key}: {str(outcome[0]).strip().splitlines()[0]}")


@dataclass(frozen=True)
class Placement:
    """A placement group with one bundle per actor, in the order rollout, learner, reward, codec workers,
    judges."""

    group: PlacementGroup
    recipe: Recipe

    def options(self, bundle: int, cpus: float, gpus: float = 0) -> dict[str, Any]:
        """Options of the actor in `bundle`: its cores, threads to match them, and its GPUs."""
        return actor_options(cpus, gpus) | {
            "scheduling_strategy": PlacementGroupSchedulingStrategy(self.group, placement_group_bundle_index=bundle)
        }


def actor_options(cpus: float, gpus: float = 0) -> dict[str, Any]:
    """Ray options of an actor that computes on exactly the cores and GPUs that it reserves."""
    threads = str(max(1, int(cpus)))
    variables = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
    return {"num_cpus": cpus, "num_gpus": gpus, "runtime_env": {"env_vars": variables | PROCESS_ENVIRONMENT}}


@contextmanager
def placed(recipe: Recipe) -> Iterator[Placement]:
    """Reserve the cores of all RL actors at once. Raises WaitTimeout when the cluster does not grant them."""
    bundles = bundles_of(recipe)
    group = placement_group(bundles, strategy="PACK")
    try:
        if not group.wait(recipe.cluster.start_timeout):
            raise WaitTimeout(
                "the run",
                f"{_amount(bundles)} in {len(bundles)} bundles, the cluster has {_amount([ray.cluster_resources()])}",
                recipe.cluster.start_timeout,
                "lower rollout.workers, learner.workers or their cpus and gpus",
            )
        yield Placement(group, recipe)
    finally:
        remove_placement_group(group)


def bundles_of(recipe: Recipe) -> list[dict[str, float]]:
    """What each RL actor reserves, in the order rollout, learner, reward, codec workers,
    judges."""
    rollout, learner, scoring = recipe.rollout, recipe.learner, recipe.scoring
    return (
        [_bundle(rollout.cpus, rollout.gpus)] * rollout.workers
        + [_bundle(learner.cpus, learner.gpus)] * learner.workers
        + [_bundle(*reward_reservation(recipe))] * scoring.workers
        + [_bundle(recipe.speech.cpus, 0)] * codec_workers(recipe)
        + [_bundle(judge.cpus, judge.gpus) for judge in served_judges(recipe)]
    )


def _bundle(cpus: float, gpus: float) -> dict[str, float]:
    return {"CPU": float(cpus)} | ({"GPU": float(gpus)} if gpus else {})


def _amount(bundles: Sequence[Mapping[str, float]]) -> str:
    cpus, gpus = (sum(bundle.get(kind, 0) for bundle in bundles) for kind in ("CPU", "GPU"))
    return f"{cpus:g} cores" + (f" and {gpus:g} GPUs" if gpus else "")
