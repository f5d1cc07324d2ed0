"""What policy and critic share: a Transformers model, and its states where completion tokens are predicted."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from policies.adapter import PolicyAdapter
from policies.batch import PolicyBatch
from policies.lora import has_lora


class Backbone(nn.Module):
    """A Transformers audio-language model in its layout."""

    def __init__(self, adapter: PolicyAdapter, model: PreTrainedModel, freeze_encoder: bool) -> None:
        super().__init__()
        self.adapter, self.model = adapter, model
        self.encoder_is_frozen = freeze_encoder or has_lora(model)

    def encode(self, batch: PolicyBatch) -> list[Tensor]:
        """Encoder output of each clip of the batch; with a frozen encoder it may be kept and given to `forward`.

        Of a batch without audio it is that of a silent clip, which counts for nothing: at ZeRO 3 ranks gather each
        weight together, and one that left the encoder out would keep the others waiting. None where a layout has no
        encoder.
        """
        features, mask = batch.features, batch.features_mask
        if features is None or mask is None:
            silence = self.adapter.silence()
            if silence is None:
                return []
            features, mask = (tensor.to(batch.input_ids.device) for tensor in silence)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.encoder_is_frozen):
            return self.adapter.audio_states(self.model, features.to(self.model.dtype), mask)

    def states(self, batch: PolicyBatch, audio: Sequence[Tensor] | None) -> Tensor:
        """Last decoder states (N, H) at what predicts each of the batch's N real completion tokens, row by row.

        Only at real tokens: over a large vocabulary the padding of short completions would be most of the work.
        `audio`: what `encode` gave for this batch, or None to encode it now.
        """
        hidden = self.adapter.hidden_states(self.model, batch, audio or self.encode(batch))
        rows, steps = batch.completion_mask.nonzero(as_tuple=True)
        return hidden[batch.row_index[rows], batch.logit_positions[rows, steps]]

    def checkpoint_activations(self) -> None:
        """Keep for backward only what enters each layer, and compute the rest of it anew there: about a third more
        work for a fraction of the memory. Values and gradients stay the same.

        On the layers that Transformers marks as fit for it. Its own switch acts in training mode alone, where dropout
        acts too, and takes the cache from layers that read one.
        """
        for layer in self.model.modules():
            if isinstance(layer, GradientCheckpointingLayer) and not isinstance(layer.forward, partial):
                # Nothing is drawn at random in evaluation mode, so there is no generator to put back.
                layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)


def by_row(values: Tensor, batch: PolicyBatch) -> Tensor:
    """Values (N,) of the batch's real completion tokens as (B, T), 0 at padding."""
    empty = torch.zeros_like(batch.completion_mask, dtype=values.dtype)
    return empty.index_put(batch.completion_mask.nonzero(as_tuple=True), values)
