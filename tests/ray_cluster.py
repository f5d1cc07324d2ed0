"""A real Ray cluster on loopback, in processes of its own: `with ray_cluster([2, 1]) as ray:` has two nodes.

Run as a program it starts the nodes, prints a line of JSON, and ends them when its input closes.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 90.0
STOP_SECONDS = 30.0


@dataclass(frozen=True)
class Running:
    """A cluster that is up."""

    address: str
    """Of its dashboard, as `rlhf submit --address` takes it."""
    token: str
    pid: int
    """Of the process under which all its processes are."""

    def environment(self, **variables: str) -> dict[str, str]:
        """Of a process that may use the cluster."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        return kept | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token} | variables


@contextmanager
def ray_cluster(cpus: Sequence[int], variables: Mapping[str, str] | None = None) -> Iterator[Running]:
    """Nodes with so many cores each, the head first. `variables`: what `ray start` finds in its environment."""
    token = os.urandom(16).hex()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # a job's `python` is this one
    folder = tempfile.mkdtemp(prefix="rc-", dir="/tmp")  # short: it holds sockets
    environment = Running("", token, 0).environment(PATH=path, RAY_USAGE_STATS_ENABLED="0", **(variables or {}))
    process = subprocess.Popen(
        [sys.executable, __file__, folder, *map(str, cpus)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
        cwd=folder,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    expired = threading.Timer(START_SECONDS, process.kill)
    expired.start()
    try:
        said = process.stdout.readline()
        expired.cancel()
        assert said, f"Ray did not start within {START_SECONDS:g} s"
        yield Running(json.loads(said)["address"], token, process.pid)
    finally:
        expired.cancel()
        _end(process)
        shutil.rmtree(folder, ignore_errors=True)


def _end(process: "subprocess.Popen[str]") -> None:
    """Ask, then kill what is still there of the processes under it."""
    import psutil

    try:
        below = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        below = []
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
    for left in psutil.wait_procs(below, timeout=5)[1]:
        left.kill()
    if process.stdout:
        process.stdout.close()


def main() -> None:
    folder, cpus = Path(sys.argv[1]), list(map(int, sys.argv[2:]))
    # Law 10, as in rlhf_platform/train/cluster.py: the switch that keeps Ray on loopback.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray._private.utils
    from ray.cluster_utils import Cluster

    # Else it would leave its address where every other Ray of this machine looks for one.
    ray._private.utils.write_ray_address = lambda *_, **__: None
    shared = {"node_ip_address": "127.0.0.1", "object_store_memory": 300 * 2**20}
    dashboard = {"include_dashboard": True, "dashboard_host": "127.0.0.1", "dashboard_port": 0}
    cluster = Cluster()
    for number, count in enumerate(cpus):
        # Each machine of a cluster may have a place of its own for Ray's files.
        place = {"temp_dir": str(folder / str(number))}
        # The agent's port is fixed by default, and another Ray of this machine may have it.
        cluster.add_node(
            num_cpus=count, dashboard_agent_listen_port=None, **shared, **place, **({} if number else dashboard)
        )
    print(json.dumps({"address": f"http://{cluster.webui_url}"}), flush=True)
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main()
