"""How the ranks of a trainer meet, and what they add up."""

import os
import socket
import sys
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from rlhf_platform.errors import ClusterError


@dataclass(frozen=True)
class Rendezvous:
    """Where the ranks meet. `timeout`: seconds a rank waits for the others before it gives up (law 3)."""

    rank: int
    world_size: int
    host: str
    port: int
    timeout: float


def join_process_group(rendezvous: Rendezvous) -> None:
    """Meet the other ranks: gloo without a GPU, NCCL with one. Those who have met once stay together.

    Rank 0 listens on `rendezvous.host` only; torch's own store would listen on every interface (law 10).
    Raises ClusterError when the port is taken.
    """
    prepare_deepspeed()
    import deepspeed

    if torch.distributed.is_initialized():
        return
    if rendezvous.host == "127.0.0.1":
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    os.environ |= {"RANK": str(rendezvous.rank), "LOCAL_RANK": "0", "WORLD_SIZE": str(rendezvous.world_size)}
    os.environ |= {"MASTER_ADDR": rendezvous.host, "MASTER_PORT": str(rendezvous.port)}
    timeout = timedelta(seconds=rendezvous.timeout)
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(
        backend,
        store=_store(rendezvous, timeout),
        rank=rendezvous.rank,
        world_size=rendezvous.world_size,
        timeout=timeout,
    )
    deepspeed.init_distributed(backend, timeout=timeout)


def _store(rendezvous: Rendezvous, timeout: timedelta) -> Any:
    distributed: Any = torch.distributed  # documents TCPStore, and does not export it to type checkers
    host, port, size = rendezvous.host, rendezvous.port, rendezvous.world_size
    if rendezvous.rank > 0:
        return distributed.TCPStore(host, port, size, is_master=False, timeout=timeout)
    try:
        listener = socket.create_server((host, port))
    except OSError as error:
        raise ClusterError(
            f"learner.port: {host}:{port} cannot be listened on ({error.strerror}); name another, or null"
        ) from None
    # The store closes the descriptor it is given.
    return distributed.TCPStore(host, port, size, is_master=True, timeout=timeout, master_listen_fd=listener.detach())


def prepare_deepspeed() -> None:
    """Let DeepSpeed find the op that set-up compiled; otherwise each first start compiles it anew, for a minute."""
    os.environ.setdefault("TORCH_EXTENSIONS_DIR", f"{sys.prefix}/torch_extensions")
    scripts = f"{sys.prefix}/bin"
    if not os.environ["PATH"].startswith(scripts):
        os.environ["PATH"] = f"{scripts}:{os.environ['PATH']}"
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def over_ranks(value: Tensor, operation: object = None) -> Tensor:
    """Sum (or another reduction) over all ranks, on the CPU or the GPU that the group speaks through."""
    found = value.clone().to(_device())
    torch.distributed.all_reduce(found, op=operation or torch.distributed.ReduceOp.SUM)
    return found.to(value.device)


def largest_over_ranks(number: int) -> int:
    """The largest of the ranks' numbers."""
    return int(over_ranks(torch.tensor(number), torch.distributed.ReduceOp.MAX))


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
