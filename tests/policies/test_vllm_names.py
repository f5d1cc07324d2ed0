"""The adapter's name map against vLLM's own model class, without an engine."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

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

from policies.qwen3_asr import Qwen3ASRAdapter
from policies.vllm_plugin import register
from policies.vllm_qwen3_asr import UntiedQwen3ASR


@pytest.fixture(scope="module")
def vllm_model(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """vLLM's model for the checkpoint, with its weights."""
    register()
    args = EngineArgs(model=str(tiny_checkpoint), dtype="float32", max_model_len=128, kv_cache_memory_bytes=2**26)
    engine = args.create_engine_config()
    with set_current_vllm_config(engine):
        init_distributed_environment(1, 0, f"file://{tmp_path_factory.mktemp('ranks')}/meet", 0, "gloo")
        ensure_model_parallel_initialized(1, 1)
        yield initialize_model(engine)
    cleanup_dist_env_and_memory()


def unpacked(name: str) -> list[str]:
    """The parameters that vLLM keeps under one packed name."""
    for packed, parts in UntiedQwen3ASR.packed_modules_mapping.items():
        if f".{packed}." in name:
            return [name.replace(f".{packed}.", f".{part}.") for part in parts]
    return [name]


def test_every_name_is_taken_by_vllm_and_none_of_its_own_is_left_out(adapter: Qwen3ASRAdapter, vllm_model: Any) -> None:
    assert isinstance(vllm_model, UntiedQwen3ASR)  # what the plug-in registered, not vLLM's own class
    wanted = {part for name, _ in vllm_model.named_parameters() for part in unpacked(name)}
    names = [adapter.vllm_name(name) for name, _ in adapter.load_model(torch.float32).named_parameters()]
    mapped = vllm_model.hf_to_vllm_mapper.apply_list(names)
    assert len(mapped) == len(names)
    assert set(mapped) == wanted
    # A checkpoint is loaded under the names that Transformers saved.
    saved = [name for name, _ in adapter.load_model(torch.float32).named_parameters()]
    assert set(vllm_model.hf_to_vllm_mapper.apply_list(saved)) == wanted


def test_the_weights_that_vllm_holds_after_an_update_are_those_sent(adapter: Qwen3ASRAdapter, vllm_model: Any) -> None:
    """By value: each of our tensors is found whole in vLLM's parameter, also where it packs several into one."""
    model = adapter.load_model(torch.float32)
    loaded = vllm_model.load_weights(list(adapter.vllm_weights(model)))
    assert {name for name, _ in vllm_model.named_parameters()} <= loaded
    sent = dict(
        zip(
            vllm_model.hf_to_vllm_mapper.apply_list([n for n, _ in adapter.vllm_weights(model)]),
            model.parameters(),
            strict=True,
        )
    )
    for name, held in vllm_model.named_parameters():
        expected = torch.cat([sent[part].detach() for part in unpacked(name)])
        assert torch.equal(held[: len(expected)], expected), name
        assert not held[len(expected) :].any(), name  # vLLM rounds the vocabulary up
