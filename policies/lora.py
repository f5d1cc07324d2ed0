"""LoRA (2106.09685) in the decoder: W + alpha / rank * B A, with W frozen. PEFT puts it in and computes it."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import peft
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from policies.adapter import PolicyAdapter
from rlhf_platform.errors import RecipeError
from rlhf_platform.recipe.schema import LoraConfig

_NAME = "default"
"""PEFT can keep several LoRAs in a model, each under a name."""
_Layout = PolicyAdapter | type[PolicyAdapter]
"""An adapter, or its class where there is no checkpoint."""
_PREFIX = "base_model.model."
"""Of all names in a PEFT file."""


def add_lora(adapter: _Layout, model: PreTrainedModel, config: LoraConfig, key: str, seed: int) -> None:
    """Put LoRA into the decoder's linear layers that `config.targets` names, in place; module paths stay as they are.

    B starts at 0, so the model computes what it did. A is drawn from `seed`: all ranks must draw the same.
    `key`: the section in the recipe. Raises RecipeError when a target names no such layer.
    """
    layers = [name for name, module in model.named_modules() if _adaptable(adapter, model, name, module)]
    targets = set(config.targets or adapter.lora_targets)
    found = {name.rpartition(".")[2] for name in layers}
    if not targets <= found:
        raise RecipeError(
            f"{key}.targets has {', '.join(sorted(targets - found))}: the decoder has no such linear layer; "
            f"allowed {', '.join(sorted(found))}"
        )
    chosen = [name for name in layers if name.rpartition(".")[2] in targets]
    dtype = model.dtype
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        settings = peft.LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=chosen)
        peft.inject_adapter_in_model(settings, model)
    for name, parameter in model.named_parameters():
        if is_lora(name):
            parameter.data = parameter.data.to(dtype)  # PEFT makes it float32; the engine has one type for all


def _adaptable(adapter: _Layout, model: PreTrainedModel, name: str, module: nn.Module) -> bool:
    """A head is left out: it may be the embedding too, which would then change along unseen."""
    parameter = f"{name}.weight"
    outside = adapter.is_encoder(parameter) or adapter.is_adaptor(parameter)
    return isinstance(module, nn.Linear) and not outside and module is not model.get_output_embeddings()


def is_lora(parameter: str) -> bool:
    """Whether a parameter, by its name in the model, is LoRA's A or B."""
    return ".lora_A." in parameter or ".lora_B." in parameter


def has_lora(model: nn.Module) -> bool:
    """Whether there is LoRA in the model."""
    return any(isinstance(module, LoraLayer) for module in model.modules())


@contextmanager
def without_lora(model: nn.Module) -> Iterator[None]:
    """Within the block the model computes what it did before LoRA, from the same weights."""
    # By the scale: PEFT's own switch would also freeze A and B, under DeepSpeed's hands.
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    for layer in layers:
        layer.set_scale(_NAME, 0.0)
    try:
        yield
    finally:
        for layer in layers:
            layer.set_scale(_NAME, 1.0)


def merged_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """All weights, detached, under the names they had before LoRA, with LoRA added; the model stays as it is."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    for name, parameter in model.named_parameters():
        if is_lora(name):
            continue
        path, _, leaf = name.rpartition(".")
        layer = layers.get(path.removesuffix(".base_layer"))
        weight = parameter.detach()
        if layer is None:
            yield name, weight
            continue
        if leaf == "weight":
            weight = (weight.float() + layer.scaling[_NAME] * _product(layer)).to(weight.dtype)
        yield f"{path.removesuffix('.base_layer')}.{leaf}", weight


def _product(layer: LoraLayer) -> Tensor:
    return layer.lora_B[_NAME].weight.detach().float() @ layer.lora_A[_NAME].weight.detach().float()


def lora_weights(adapter: PolicyAdapter, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """A and B of every layer, detached, under the names of a PEFT file whose module paths vLLM finds.

    The scale alpha / rank is in B, so that the tensors alone say what the policy is.
    """
    return _lora_tensors(model, lambda path: adapter.vllm_name(f"{path}.weight").removesuffix(".weight"))


def _lora_tensors(model: nn.Module, name_of: Callable[[str], str]) -> Iterator[tuple[str, Tensor]]:
    for path, layer in model.named_modules():
        if isinstance(layer, LoraLayer):
            name = _PREFIX + name_of(path)
            yield f"{name}.lora_A.weight", layer.lora_A[_NAME].weight.detach()
            yield f"{name}.lora_B.weight", layer.scaling[_NAME] * layer.lora_B[_NAME].weight.detach()


def write_lora(tensors: Mapping[str, Tensor], rank: int, folder: Path) -> None:
    """The files of a PEFT LoRA, from what `lora_weights` gives."""
    layers = sorted({name.removeprefix(_PREFIX).rpartition(".lora_")[0] for name in tensors})
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": layers}
    (folder / "adapter_config.json").write_text(json.dumps(settings), "utf-8")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "adapter_model.safetensors")


def save_adapter(model: nn.Module, rank: int, path: Path) -> None:
    """Write the LoRA alone, as `peft.PeftModel.from_pretrained` reads it for the model without it."""
    path.mkdir(parents=True, exist_ok=True)
    write_lora({name: weight.cpu() for name, weight in _lora_tensors(model, str)}, rank, path)


def save_merged(adapter: PolicyAdapter, model: PreTrainedModel, path: Path) -> None:
    """Write the model with the LoRA that it has merged into its weights, as a checkpoint that knows nothing of LoRA."""
    if not has_lora(model):
        adapter.save(model, path)
        return
    plain = adapter.load_model(model.dtype)
    with torch.no_grad():
        for name, weight in merged_weights(model):
            plain.get_parameter(name).copy_(weight)
    adapter.save(plain, path)
