"""A reward model: the backbone with a scalar head on its decoder's last state, at the last token of an answer.

A checkpoint is one of the backbone with two files beside it: `value_head.safetensors` and `value_head.json`.
"""

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from policies.adapter import PolicyAdapter
from policies.backbone import Backbone
from policies.batch import PolicyBatch, make_batch
from policies.load import load_adapter
from policies.lora import save_merged
from rlhf_platform.errors import RecipeError
from rlhf_platform.types import Prompt

_WEIGHTS, _SETTINGS = "value_head.safetensors", "value_head.json"


class Rewards(NamedTuple):
    """What a forward gives, under the name that TRL's RewardTrainer reads."""

    logits: Tensor
    """(B, 1): one number for each answer, in no unit; only differences for one prompt mean something."""


class RewardModel(Backbone):
    """Everything goes through `forward`, so that DeepSpeed sees each use of a parameter at any ZeRO stage."""

    def __init__(self, adapter: PolicyAdapter, model: PreTrainedModel, seed: int) -> None:
        """`seed`: of the head's first weights, which all ranks must draw alike."""
        super().__init__(adapter, model, freeze_encoder=False)
        self.config = model.config
        self.config.num_labels = 1  # TRL asks for it
        width = model.get_output_embeddings().in_features
        # No bias: it would be the same for both answers of a pair, so that nothing could be learnt of it.
        self.value_head = nn.Linear(width, 1, bias=False, dtype=model.dtype)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            # As in 2009.01325, small enough for rewards of about 1.
            nn.init.normal_(self.value_head.weight, std=1 / (width + 1) ** 0.5)

    def forward(self, **inputs: Any) -> Rewards:
        """Rewards of the B answers of a batch, given as its fields by name; other keywords are left alone."""
        named: dict[str, Any] = {field.name: inputs.get(field.name) for field in fields(PolicyBatch)}
        batch = PolicyBatch(**named)
        hidden = self.adapter.hidden_states(self.model, batch, self.encode(batch))
        last = batch.attention_mask.sum(-1) - 1
        return Rewards(self.value_head(hidden[torch.arange(len(last), device=last.device), last]))

    @torch.no_grad()
    def rewards(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[int]]) -> list[float]:
        """The reward of each completion, token ids as a policy writes them, of the prompt at its place."""
        encoded = [self.adapter.encode(prompt) for prompt in prompts]
        batch = make_batch(encoded, range(len(encoded)), completions, self.adapter.tokenizer.pad_token_id)
        found = self(**{field.name: getattr(batch, field.name) for field in fields(batch)})
        return [float(reward) for reward in found.logits.float().squeeze(-1)]

    def add_model_tags(self, tags: Any) -> None:
        """What TRL would write in a model's card; a checkpoint of ours has none."""

    def save(self, layout: str, path: Path) -> None:
        """Write backbone, LoRA merged into its weights, and head. `layout`: the adapter's name in a recipe."""
        save_merged(self.adapter, self.model, path)
        save_file({"weight": self.value_head.weight.detach().cpu().contiguous()}, path / _WEIGHTS)
        (path / _SETTINGS).write_text(json.dumps({"adapter": layout}, indent=1) + "\n", "utf-8")


def load_reward_model(path: Path | str, dtype: torch.dtype = torch.float32) -> RewardModel:
    """The reward model that `RewardModel.save` wrote, on the CPU, ready to score.

    Raises RecipeError when the folder has none.
    """
    settings = Path(path, _SETTINGS)
    if not settings.is_file():
        raise RecipeError(f"{path}: no reward model in it, {_SETTINGS} is missing; train one with type: reward_model")
    adapter = load_adapter(str(json.loads(settings.read_text("utf-8"))["adapter"]), path)
    model = RewardModel(adapter, adapter.load_model(dtype), seed=0)
    with torch.no_grad():
        model.value_head.weight.copy_(load_file(Path(path, _WEIGHTS))["weight"])
    return model.eval()


def freeze_head_of_vocabulary(model: PreTrainedModel) -> None:
    """What writes text has no part in a reward; where it is the embedding too, it stays as that is."""
    head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    if head is not embedding:
        head.requires_grad_(False)
