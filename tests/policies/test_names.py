"""Every layout's names against vLLM's own model, without an engine: each weight arrives whole, none is left out."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")

from vllm.config import set_current_vllm_config
from vllm.distributed import (
    cleanup_dist_env_and_memory,
    ensure_model_parallel_initialized,
    init_distributed_environment,
)
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.model_loader.utils import initialize_model

from policies.adapter import PolicyAdapter
from policies.load import load_adapter
from policies.vllm_plugin import register
from tests.layouts import CASES, LAYOUTS

UNTOUCHED = -1.0
SERVED_FROM_DISK = ("visual.",)
"""Qwen2.5-Omni's vision tower, which no prompt reaches and the learner does not load."""


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{'tied' if case[1] else 'untied'}")
def case(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, PolicyAdapter, Any]]:
    """A checkpoint, its adapter, and the model that vLLM makes for it."""
    name, tied = request.param
    layout = LAYOUTS[name]
    path = tmp_path_factory.mktemp(name) / "checkpoint"
    layout.build(path, tied)
    register()
    args = EngineArgs(model=str(path), dtype="float32", max_model_len=layout.max_tokens, kv_cache_memory_bytes=2**26)
    engine = args.create_engine_config()
    with set_current_vllm_config(engine):
        init_distributed_environment(1, 0, f"file://{path.parent}/meet", 0, "gloo")
        ensure_model_parallel_initialized(1, 1)
        yield path, load_adapter(layout.adapter, path), initialize_model(engine)
    cleanup_dist_env_and_memory()


@torch.no_grad()
def numbered(shapes: dict[str, torch.Size], vllm_model: Any) -> dict[str, torch.Tensor]:
    """What vLLM's model holds after it loaded a tensor of 1, one of 2 and so on under these names."""
    for parameter in vllm_model.parameters():
        parameter.fill_(UNTOUCHED)
    vllm_model.load_weights((name, torch.full(shape, i + 1.0)) for i, (name, shape) in enumerate(shapes.items()))
    return dict(vllm_model.named_parameters())


def test_every_weight_sent_arrives_whole_and_none_is_left_out(case: tuple[Path, PolicyAdapter, Any]) -> None:
    _, adapter, vllm_model = case
    model = adapter.load_model(torch.float32)
    shapes = {name: tensor.shape for name, tensor in adapter.vllm_weights(model)}
    assert len(shapes) == len(list(model.parameters()))
    held = numbered(shapes, vllm_model)
    arrived = torch.cat([tensor.flatten() for tensor in held.values()])
    for i, (name, shape) in enumerate(shapes.items()):
        assert int((arrived == i + 1).sum()) == shape.numel(), name
    left_out = [name for name, tensor in held.items() if (tensor == UNTOUCHED).any()]
    assert all(name.startswith(SERVED_FROM_DISK) for name in left_out)


def test_a_checkpoint_on_disk_leaves_none_of_vllms_weights_out(case: tuple[Path, PolicyAdapter, Any]) -> None:
    path, _, vllm_model = case
    held = numbered({name: tensor.shape for name, tensor in load_file(path / "model.safetensors").items()}, vllm_model)
    assert not [name for name, tensor in held.items() if (tensor == UNTOUCHED).any()]
