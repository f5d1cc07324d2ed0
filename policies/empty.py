"""A recipe's model without its weights: what can be counted before anything is loaded or built."""

from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from policies.adapter import PolicyAdapter
from policies.dimensions import Dimensions
from policies.load import ADAPTERS
from policies.lora import add_lora
from policies.policy import freeze
from policies.tiny import tiny_config
from policies.tokenizer import vocabulary_size
from rlhf_platform.errors import RecipeError
from rlhf_platform.recipe.backbone import BackboneConfig
from rlhf_platform.recipe.schema import LearnerConfig


@dataclass(frozen=True)
class EmptyModel:
    """A model on the meta device: its parameters have names and shapes and take no memory."""

    adapter: type[PolicyAdapter]
    model: PreTrainedModel
    dimensions: Dimensions


def empty_model(backbone: BackboneConfig, learner: LearnerConfig) -> EmptyModel:
    """The model that the learner trains: its window cut, LoRA added and frozen parameters marked as there.

    Raises RecipeError when there is no configuration on this machine, or it is not of the recipe's layout.
    """
    adapter = ADAPTERS[backbone.adapter]
    config = backbone_config(backbone)
    if config.model_type not in adapter.model_types:
        raise RecipeError(
            f"backbone.adapter is {backbone.adapter}: {backbone.path!r} is a checkpoint of {config.model_type}, "
            f"this adapter reads {', '.join(adapter.model_types)}; set the adapter that belongs to it"
        )
    config = adapter.shortened(config, backbone.window)
    with torch.device("meta"):
        model = adapter.empty_model(config)
        if learner.lora.rank:
            add_lora(adapter, model, learner.lora, "learner.lora", seed=0)
    freeze(adapter, model, learner.freeze_encoder)
    return EmptyModel(adapter, model, adapter.dimensions(config))


def backbone_config(backbone: BackboneConfig) -> PreTrainedConfig:
    """The configuration of the recipe's checkpoint, whether it was built or downloaded yet or not.

    Nothing is downloaded: of a hub name only this machine's cache is asked. Raises RecipeError when it has none.
    """
    if backbone.path is None:
        return _built_config(backbone)
    try:
        found, _ = PreTrainedConfig.get_config_dict(backbone.path, local_files_only=True)
        # By name, since vLLM puts classes of its own in the place of some that AutoConfig knows, where it is imported.
        kind = CONFIG_MAPPING_NAMES.get(str(found.get("model_type")))
        if kind is None:
            return AutoConfig.from_pretrained(backbone.path, local_files_only=True)
        config: PreTrainedConfig = getattr(transformers, kind).from_dict(found)
        return config
    except (OSError, ValueError) as error:
        if Path(backbone.path).is_dir():
            why = str(error).strip().splitlines()[0]
            raise RecipeError(f"backbone.path is {backbone.path!r}: no config.json can be read there ({why})") from None
        raise RecipeError(
            f"backbone.path is {backbone.path!r}: a hub name that this machine has no copy of, and planning downloads "
            "nothing; set backbone.path to a folder that holds its config.json, or run the recipe here once"
        ) from None


def _built_config(backbone: BackboneConfig) -> PreTrainedConfig:
    if backbone.build == "tiny":
        tiny = backbone.tiny
        return tiny_config(tiny, vocabulary_size(tiny.text_pieces, tiny.audio_slots))
    if backbone.build == "whisper_tiny_en":
        from policies.pretrained.whisper_tiny_en import whisper_tiny_en_config

        return whisper_tiny_en_config()
    if backbone.build == "smollm2":
        from policies.pretrained.smollm2 import CONFIG

        return CONFIG
    from policies.pretrained.small import small_config, small_vocabulary

    return small_config(small_vocabulary(backbone.tiny.audio_slots), int(backbone.window))
