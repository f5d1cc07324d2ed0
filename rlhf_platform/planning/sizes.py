"""Parameters of a recipe's model by part, counted without its weights."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache

from policies.dimensions import Dimensions
from policies.empty import EmptyModel, empty_model
from policies.lora import is_lora
from rlhf_platform.errors import RecipeError
from rlhf_platform.recipe.backbone import BackboneConfig, TinyBackbone
from rlhf_platform.recipe.schema import LearnerConfig, LoraConfig, Recipe

SMOLLM2 = "smollm2"
"""The model that comes with the platform, by the name that recipes have for it."""
PARTS = ("encoder", "adaptor", "decoder", "embedding", "head", "LoRA")


@dataclass(frozen=True)
class Sizes:
    """Parameters of the model that the learner trains. A head that is tied to the embedding counts with it."""

    total: Mapping[str, int]
    """By part; LoRA apart."""
    trainable: Mapping[str, int]
    """Those of them that the learner trains."""
    largest: int
    """Parameters of the largest trainable tensor."""
    head: int
    """Weights that the output head multiplies with, its own or the embedding's."""
    critic: Mapping[str, int]
    """Parameters that a copy of the model learns as a critic, by part: those without LoRA, and without an output head
    of its own."""
    critic_largest: int
    """Parameters of the largest tensor among them."""
    served_lora: bool
    """Whether a sync sends LoRA alone rather than all weights."""
    dimensions: Dimensions

    @property
    def weights(self) -> int:
        """Of the model without LoRA, as rollout serves it and a checkpoint holds it."""
        return sum(self.total.values()) - self.total["LoRA"]

    @property
    def parameters(self) -> int:
        """With LoRA, as the learner holds it."""
        return sum(self.total.values())

    @property
    def trained(self) -> int:
        return sum(self.trainable.values())


def sizes_of(recipe: Recipe) -> Sizes:
    """Count the parameters of the recipe's model. Raises RecipeError when it has no configuration on this machine."""
    learner = recipe.learner
    return _counted(json.dumps([asdict(recipe.backbone), learner.freeze_encoder, asdict(learner.lora)]))


def weights_of_judge(model: str) -> int | None:
    """Parameters of a language model that judges; None where this machine has no configuration of it."""
    backbone = BackboneConfig("text_lm", path=None if model == SMOLLM2 else model, build=SMOLLM2)
    try:
        return _counted(json.dumps([asdict(backbone), False, asdict(LoraConfig())])).weights
    except RecipeError:  # a name on a hub, or a layout that no learner takes
        return None


@lru_cache(maxsize=64)
def _counted(asked: str) -> Sizes:
    """Remembered, since the search for changes that fit asks again and again."""
    backbone, freeze_encoder, lora = json.loads(asked)
    tiny = TinyBackbone(**backbone.pop("tiny"))
    config = BackboneConfig(tiny=tiny, **backbone)
    found = count_parts(empty_model(config, LearnerConfig(freeze_encoder=freeze_encoder, lora=LoraConfig(**lora))))
    if not lora["rank"]:
        return found
    whole = count_parts(empty_model(config, LearnerConfig(freeze_encoder=freeze_encoder)))
    return replace(found, critic=whole.critic, critic_largest=whole.critic_largest)


def count_parts(empty: EmptyModel) -> Sizes:
    """The parameters of a model by part. What a critic would learn is right where the model has no LoRA."""
    model, adapter = empty.model, empty.adapter
    embedding = model.get_input_embeddings().weight
    head = model.get_output_embeddings().weight
    total, trainable, critic = (dict.fromkeys(PARTS, 0) for _ in range(3))
    largest = critic_largest = 0
    for name, parameter in model.named_parameters():
        if is_lora(name):
            part = "LoRA"
        elif parameter is embedding:
            part = "embedding"
        elif parameter is head:
            part = "head"
        else:
            part = "encoder" if adapter.is_encoder(name) else "adaptor" if adapter.is_adaptor(name) else "decoder"
        size = parameter.numel()
        total[part] += size
        if not parameter.requires_grad:
            continue
        trainable[part] += size
        largest = max(largest, size)
        if part not in ("head", "LoRA"):
            critic[part] += size
            critic_largest = max(critic_largest, size)
    served = adapter.vllm_serves_lora
    return Sizes(total, trainable, largest, head.numel(), critic, critic_largest, served, empty.dimensions)
