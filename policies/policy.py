"""The policy as the learner trains it: one module whose forward is the log-probs of completions."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from policies.adapter import PolicyAdapter
from policies.backbone import Backbone, by_row
from policies.batch import PolicyBatch
from policies.lora import has_lora, is_lora
from rlhf_platform.algorithms.logprobs import TILED_FROM, tiled_logprobs, token_logprobs

T = TypeVar("T")


class Policy(Backbone):
    """A Transformers audio-language model, with the sampler's temperature and token mask built in (law 6).

    A model with LoRA (`policies.lora.add_lora`) learns nothing else.

    Everything goes through `forward`, so that DeepSpeed sees each use of a parameter at any ZeRO stage.
    """

    allowed: Tensor
    """(K + 1, V) bool, `TokenRule.masks`: what the engine may sample."""

    def __init__(
        self,
        adapter: PolicyAdapter,
        model: PreTrainedModel,
        temperature: float,
        freeze_encoder: bool,
        entropy_gradient: bool = False,
    ) -> None:
        """`entropy_gradient`: whether the entropy is learnt from, as an entropy bonus does, or only looked at."""
        super().__init__(adapter, model, freeze_encoder)
        self.temperature, self.entropy_gradient = temperature, entropy_gradient
        self.rule = adapter.rule
        allowed = self.rule.masks(model.get_output_embeddings().weight.shape[0])
        self.register_buffer("allowed", allowed, persistent=False)
        freeze(adapter, model, freeze_encoder)

    def forward(self, batch: PolicyBatch, audio: Sequence[Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Log-prob of each completion token and entropy of its distribution, in nats, both (B, T), 0 at padding."""
        states = self.states(batch, audio)
        rows, steps = batch.completion_mask.nonzero(as_tuple=True)
        tokens = batch.completion_ids[rows, steps]
        masks = self.rule.rows(steps, 0 if batch.end_from is None else batch.end_from[rows])
        head = self.model.get_output_embeddings()
        if self.allowed.shape[1] < TILED_FROM:
            rest = (tokens, self.allowed[masks], self.temperature, self.entropy_gradient)
            logprobs, entropy = token_logprobs(head(states), *rest)
        else:
            logprobs, entropy = as_call_of(head, lambda x: self._tiled(x, head, tokens, masks), states)
        return by_row(logprobs, batch), by_row(entropy, batch)

    def _tiled(self, states: Tensor, head: Any, tokens: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probs and entropies (N,) without the logits; `masks` (N,): the row of `allowed` for each token."""
        logprobs = entropy = states.new_zeros(len(tokens), dtype=torch.float32)
        for number in masks.unique():
            here = (masks == number).nonzero(as_tuple=True)
            rest = (tokens[here], self.allowed[number], self.temperature, self.entropy_gradient)
            found = tiled_logprobs(states[here], head.weight, head.bias, *rest)
            logprobs, entropy = logprobs.index_put(here, found[0]), entropy.index_put(here, found[1])
        return logprobs, entropy


def as_call_of(module: nn.Module, function: Callable[[Tensor], T], states: Tensor) -> T:
    """`function(states)`, computed as if it were `module(states)`.

    At ZeRO 3 a weight is whole during a call of its own module and the backward of that call. One that is read from
    outside DeepSpeed notices, and from then on keeps whole for all of the reader's forward and backward.
    """
    module.forward = function  # shadows the method of the class
    try:
        return module(states)
    finally:
        del module.forward


def freeze(adapter: PolicyAdapter | type[PolicyAdapter], model: PreTrainedModel, freeze_encoder: bool) -> None:
    """Leave a gradient to the parameters that are learnt: LoRA alone where the model has it."""
    only_lora = has_lora(model)
    for name, parameter in model.named_parameters():
        frozen = not is_lora(name) if only_lora else freeze_encoder and adapter.is_encoder(name)
        # Some are never learnt, as the sinusoids of an encoder's positions.
        parameter.requires_grad_(parameter.requires_grad and not frozen)
