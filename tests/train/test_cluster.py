"""Waits on Ray have a bound and a name (law 3); what does not answer is said in one line."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import ray

from rlhf_platform.errors import ClusterError, RewardError, WaitTimeout
from rlhf_platform.recipe.schema import ClusterConfig, Recipe, RewardConfig
from rlhf_platform.train.cluster import actor_options, bundles_of, cluster, placed
from rlhf_platform.train.waiting import wait


@pytest.fixture(scope="module")
def local_ray() -> Iterator[Recipe]:
    recipe = Recipe(name="test", rewards=[RewardConfig(fn="rewards.asr:wer_reward")])
    with cluster(recipe):
        yield recipe


@ray.remote
class Worker:
    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def refuse(self) -> None:
        raise RewardError("rewards: too many failed")

    def die(self) -> None:
        os._exit(1)

    def threads(self) -> tuple[str, float]:
        return os.environ["OMP_NUM_THREADS"], ray.get_runtime_context().get_assigned_resources()["CPU"]


def test_a_wait_that_expires_says_who_waited_for_what_and_how_long(local_ray: Recipe) -> None:
    worker = Worker.options(num_cpus=0).remote()
    with pytest.raises(WaitTimeout, match=r"the run waited 0.5 s for learner 0 to train: raise cluster.step_timeout"):
        wait(worker.sleep.remote(30), "learner 0", "train", 0.5)
    ray.kill(worker)


def test_an_actor_s_own_error_and_its_death_come_up_as_one_line(local_ray: Recipe) -> None:
    worker = Worker.options(num_cpus=0).remote()
    with pytest.raises(RewardError, match=r"^rewards: too many failed$"):
        wait(worker.refuse.remote(), "reward worker 0", "score", 30)
    with pytest.raises(ClusterError, match=r"^reward worker 0 died while it was to score"):
        wait(worker.die.remote(), "reward worker 0", "score", 30)


def test_an_actor_computes_on_exactly_the_cores_it_reserves(local_ray: Recipe) -> None:
    worker = Worker.options(**actor_options(2)).remote()
    assert ray.get(worker.threads.remote(), timeout=60) == ("2", 2.0)
    ray.kill(worker)


def test_more_cores_than_the_cluster_has_are_refused_after_a_bounded_wait(local_ray: Recipe) -> None:
    big = Recipe(name="big")
    big.rollout.cpus, big.cluster.start_timeout = 64, 0.5
    with (
        pytest.raises(WaitTimeout, match=r"65.25 cores in 3 bundles, the cluster has 3 cores: lower rollout.workers"),
        placed(big),
    ):
        pass


def test_a_reward_worker_reserves_what_its_rewards_do() -> None:
    recipe = Recipe(name="a", rewards=[RewardConfig(fn="a:b", cpus=1.5, gpus=0.5), RewardConfig(fn="a:c")])
    recipe.evaluation.rewards = [RewardConfig(fn="a:d", gpus=0.5)]
    recipe.scoring.workers = 2
    assert bundles_of(recipe)[2:] == [{"CPU": 1.75, "GPU": 1.0}] * 2


def test_the_local_cluster_listens_on_loopback_only(local_ray: Recipe) -> None:
    """Law 10. Reads the kernel's table of listening sockets for the processes of this Ray session."""
    import psutil

    session = ray._private.worker._global_node.get_session_dir_path()
    processes = [p for p in psutil.process_iter(["cmdline"]) if session in " ".join(p.info["cmdline"] or [])]
    assert processes
    for process in processes:
        for connection in process.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN:
                assert connection.laddr.ip in ("127.0.0.1", "::1", "::ffff:127.0.0.1"), (
                    process.info["cmdline"][:2],
                    connection.laddr,
                )


def _join(address: str, timeout: float) -> str:
    """What a process that never used Ray says when it joins `address`."""
    program = f"""
from rlhf_platform.errors import PlatformError
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.train.cluster import cluster
recipe = Recipe(name="x")
recipe.cluster.address, recipe.cluster.connect_timeout = {address!r}, {timeout}
try:
    with cluster(recipe):
        print("joined")
except PlatformError as error:
    print(error)
import os; os._exit(0)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    return ended.stdout.strip().splitlines()[-1]


def test_an_address_where_nothing_listens_is_refused_at_once() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        said = _join(f"127.0.0.1:{port}", ClusterConfig().connect_timeout)
    assert said.startswith(f"cluster.address is 127.0.0.1:{port}: nothing answers there (")


def test_an_address_where_something_else_listens_is_given_up_after_a_bounded_wait() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=server.accept, daemon=True).start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        said = _join(address, 3)
    assert address in said
    assert said.startswith(("the run waited 3 s for Ray at", "cluster.address is"))
