"""vLLM's worker with our proposer in place of the one that it chooses."""

from typing import Any

import torch
from torch import Tensor
from vllm.platforms import current_platform
from vllm.triton_utils.dispatcher import register_kernels

from policies.mtp.vllm_model import MtpProposer

if current_platform.is_cpu():
    from vllm.v1.worker.cpu_worker import CPUWorker as Worker
else:
    from vllm.v1.worker.gpu_worker import Worker


class MtpWorker(Worker):
    """A worker that drafts with the heads of `policies.mtp`."""

    def init_device(self) -> Any:
        super().init_device()
        runner = self.model_runner
        runner.drafter = MtpProposer(self.vllm_config, self.device, runner)
        if current_platform.is_cpu():
            register_kernels({"vllm.v1.sample.rejection_sampler.expand_kernel": _expand})


def _expand(
    output: Tensor, values: Tensor, ends: Tensor, replaced: float, by: float, MAX_NUM_TOKENS: int | None = None
) -> None:
    """Each request's value, such as its temperature, for each of its guesses: `ends` are their running totals.

    vLLM 0.32 writes it into an integer copy on the CPU, and goes on with what memory happened to hold.
    """
    counts = torch.diff(ends, prepend=ends.new_zeros(1))
    output.copy_(values.masked_fill(values == replaced, by).repeat_interleave(counts))
