"""Weights on their way from the learner to a rollout engine, and the checksum both ends compute."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


@dataclass(frozen=True)
class WeightUpdate:
    """One version of the policy: all its weights under vLLM's names, or only its LoRA under PEFT's."""

    version: int
    tensors: Mapping[str, Tensor]
    checksum: int
    lora_rank: int = 0
    """0: `tensors` are whole weights; else they are LoRA of this rank for the weights that the engine started with."""


def checksum(tensors: Mapping[str, Tensor]) -> int:
    """CRC-32 over names, shapes and bytes, in the order of names: any lost, swapped or altered parameter changes it."""
    crc = 0
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous().cpu()
        crc = zlib.crc32(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode(), crc)
        bytes_of: npt.NDArray[np.uint8] = tensor.flatten().view(torch.uint8).numpy()
        crc = zlib.crc32(bytes_of.data, crc)
    return crc
