"""What plain decoder language models share, whatever they read and write: Llama and Qwen as Transformers saves them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedModel

from policies.adapter import PolicyAdapter
from policies.batch import PolicyBatch
from policies.chat import decoder_layers
from policies.dimensions import Dimensions
from rlhf_platform.types import Prompt

_ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
"""vLLM's class by `model_type`."""


class DecoderLMAdapter(PolicyAdapter):
    """A decoder without an encoder: a prompt is token ids, and so is a completion."""

    model_types = tuple(_ARCHITECTURES)
    vllm_serves_lora = True
    prompt_tokens: int
    """Of a usual prompt, rounded up."""

    def __init__(self, path: Path | str) -> None:
        self.path = str(path)
        self.vllm_architecture = _ARCHITECTURES[AutoConfig.from_pretrained(self.path).model_type]
        self.tokenizer = AutoTokenizer.from_pretrained(self.path)

    def load_model(self, dtype: torch.dtype) -> PreTrainedModel:
        return AutoModelForCausalLM.from_pretrained(self.path, dtype=dtype, attn_implementation="sdpa")

    @classmethod
    def empty_model(cls, config: PreTrainedConfig) -> PreTrainedModel:
        model = AutoModelForCausalLM.from_config(config)
        model.tie_weights()
        return model

    @classmethod
    def dimensions(cls, config: PreTrainedConfig) -> Dimensions:
        return Dimensions(decoder_layers(config), config.vocab_size, cls.prompt_tokens)

    def save(self, model: PreTrainedModel, path: Path) -> None:
        model.save_pretrained(path)
        self.tokenizer.save_pretrained(path)

    def vllm_prompt(self, prompt: Prompt) -> dict[str, Any]:
        return {"prompt_token_ids": list(self.encode(prompt).token_ids)}

    def audio_states(self, model: PreTrainedModel, features: Tensor, mask: Tensor) -> list[Tensor]:
        raise NotImplementedError(f"{type(self).__name__} hears no audio")

    def hidden_states(self, model: PreTrainedModel, batch: PolicyBatch, clips: Sequence[Tensor]) -> Tensor:
        decoder = model.model
        return decoder(batch.input_ids, **batch.seen_by(decoder.dtype), use_cache=False).last_hidden_state

    def model_inputs(self, batch: PolicyBatch, labels: Tensor) -> dict[str, Tensor]:
        return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": labels}

    @classmethod
    def is_encoder(cls, parameter: str) -> bool:
        return False

    def vllm_name(self, parameter: str) -> str:
        return parameter
