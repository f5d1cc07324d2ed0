"""Weights on their way from the learner to a rollout engine, and the checksum both ends compute."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class WeightUpdate:
    """One version of the policy under vLLM's parameter names."""

    version: int
    tensors: Mapping[str, Tensor]
    checksum: int


def checksum(tensors: Mapping[str, Tensor]) -> int:
    """CRC-32 over names, shapes and bytes, in the order of names: any lost, swapped or altered parameter changes it."""
    crc = 0
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous().cpu()
        crc = zlib.crc32(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode(), crc)
        crc = zlib.crc32(memoryview(tensor.flatten().view(torch.uint8).numpy().astype(np.uint8, copy=False)), crc)
    return crc
