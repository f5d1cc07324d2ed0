"""Backbone and heads as they learn: what each position and each of its guesses is worth against the known text."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear
from transformers import PreTrainedModel

from policies.adapter import PolicyAdapter
from policies.backbone import Backbone
from policies.batch import PolicyBatch
from policies.mtp.heads import MtpHeads, Rope, rope_of


@dataclass(frozen=True)
class OffsetLosses:
    """By offset, (K + 1,): 0 is the backbone's own next token, h what block h guesses."""

    nats: Tensor
    """Cross-entropy, summed over tokens."""
    tokens: Tensor
    hits: Tensor
    """Tokens that were the most likely one."""


class MtpPolicy(Backbone):
    """A backbone with its heads, trained together. Everything goes through `forward`, as DeepSpeed needs it."""

    def __init__(self, adapter: PolicyAdapter, model: PreTrainedModel, heads: MtpHeads) -> None:
        super().__init__(adapter, model, freeze_encoder=True)
        self.heads = heads
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and not adapter.is_encoder(name))

    def forward(self, batch: PolicyBatch, audio: Sequence[Tensor] | None = None) -> OffsetLosses:
        """Losses over the completion tokens of a batch that is not packed."""
        states = self.adapter.hidden_states(self.model, batch, audio or self.encode(batch))
        return offset_losses(batch, [states, *self.heads(*read_by_heads(self.model, batch, states))], self.model)


def read_by_heads(model: PreTrainedModel, batch: PolicyBatch, states: Tensor) -> tuple[Tensor, Tensor, Rope]:
    """What `MtpHeads` takes: last states, embeddings of the tokens, and where they stand."""
    tokens = model.get_input_embeddings()(batch.input_ids)
    positions = torch.arange(states.shape[1], device=states.device).unsqueeze(0)
    return states, tokens, rope_of(model, states, positions)


def offset_losses(
    batch: PolicyBatch, states: Sequence[Tensor], model: PreTrainedModel, learns: bool = True
) -> OffsetLosses:
    """Losses of the states (B, S, H) of each offset against the completions.

    At the position that predicts completion token j, offset h predicts token j + h, where there is one. Without
    `learns` nothing flows back into the output head.
    """
    rows = torch.arange(len(batch.completion_ids), device=batch.completion_ids.device)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    head = model.get_output_embeddings()
    for offset, predicting in enumerate(states):
        targets = batch.completion_ids[:, offset:]
        there = batch.completion_mask[:, offset:].bool()
        at = batch.logit_positions[:, : targets.shape[1]]
        chosen = predicting[rows.unsqueeze(1), at][there]
        logits = (head(chosen) if learns else linear(chosen, head.weight.detach())).float()
        labels = targets[there]
        hits = (logits.argmax(-1) == labels).sum()
        found.append((cross_entropy(logits, labels, reduction="sum"), there.sum(), hits))
    nats, tokens, hits = (torch.stack(column) for column in zip(*found, strict=True))
    return OffsetLosses(nats, tokens, hits)
