"""The critic of PPO: one module whose forward is the value of each state before a completion token."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from policies.adapter import PolicyAdapter
from policies.backbone import Backbone, by_row
from policies.batch import PolicyBatch
from policies.policy import freeze


class Critic(Backbone):
    """A Transformers audio-language model with a value head in place of its output head (1707.06347).

    With `trunk` the whole model is frozen and the head, a perceptron of one hidden layer, learns alone, at the cost of
    a forward without backward; otherwise the head is one linear layer and the model learns with it, LoRA alone where
    it has LoRA, its encoder unless `freeze_encoder`. All values are 0 at the start.
    """

    def __init__(self, adapter: PolicyAdapter, model: PreTrainedModel, freeze_encoder: bool, trunk: bool) -> None:
        """The perceptron's hidden layer is drawn from torch's generator, which all ranks must have seeded alike."""
        super().__init__(adapter, model, freeze_encoder or trunk)
        self.trunk = trunk
        output = model.get_output_embeddings()
        self.head = value_head(output.weight.shape[1], trunk).to(output.weight)
        if trunk:
            model.requires_grad_(False)
            return
        freeze(adapter, model, freeze_encoder)
        # Nothing is read of it. A tied one is the embedding of the input too, and learns as that.
        if output.weight is not model.get_input_embeddings().weight:
            output.requires_grad_(False)

    def forward(self, batch: PolicyBatch, audio: Sequence[Tensor] | None = None) -> Tensor:
        """Value (B, T) of the state before each completion token, float32, 0 at padding.

        `audio`: what `encode` gave for this batch, or None to encode it now.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.trunk):
            states = self.states(batch, audio)
        values: Tensor = self.head(states)
        return by_row(values.squeeze(-1).float(), batch)


def value_head(width: int, hidden_layer: bool) -> nn.Module:
    """(N, width) -> (N, 1), 0 everywhere at the start: linear, or with a hidden layer of the same width before it."""
    last = nn.Linear(width, 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    if not hidden_layer:
        return last
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), last)
