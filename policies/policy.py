"""The policy as the learner trains it: one module whose forward is the log-probs of completions."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from policies.adapter import PolicyAdapter
from policies.batch import PolicyBatch
from policies.lora import has_lora, is_lora
from rlhf_platform.algorithms.logprobs import token_logprobs


class Policy(nn.Module):
    """A Transformers audio-language model, with the sampler's temperature and token mask built in (law 6).

    A model with LoRA (`policies.lora.add_lora`) learns nothing else.

    Everything goes through `forward`, so that DeepSpeed sees each use of a parameter at any ZeRO stage.
    """

    allowed: Tensor
    """(V,) bool: what the engine may sample."""

    def __init__(
        self, adapter: PolicyAdapter, model: PreTrainedModel, temperature: float, freeze_encoder: bool
    ) -> None:
        super().__init__()
        self.adapter, self.model, self.temperature = adapter, model, temperature
        self.encoder_is_frozen = freeze_encoder or has_lora(model)
        allowed = torch.zeros(model.get_output_embeddings().weight.shape[0], dtype=torch.bool)
        allowed[list(adapter.completion_token_ids)] = True
        self.register_buffer("allowed", allowed, persistent=False)
        freeze(adapter, model, freeze_encoder)

    def encode(self, batch: PolicyBatch) -> list[Tensor]:
        """Encoder output of each clip of the batch, none for prompts without audio.

        With a frozen encoder it may be kept and given to `forward`.
        """
        if batch.features is None or batch.features_mask is None:
            return []
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.encoder_is_frozen):
            return self.adapter.audio_states(self.model, batch.features.to(self.model.dtype), batch.features_mask)

    def forward(self, batch: PolicyBatch, audio: Sequence[Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Log-prob of each completion token and entropy of its distribution, in nats, both (B, T), 0 at padding."""
        clips = self.encode(batch) if audio is None else audio
        hidden = self.adapter.hidden_states(self.model, batch, clips)
        # Only at real tokens: over a large vocabulary the padding of short completions would be most of the work.
        rows, steps = batch.completion_mask.nonzero(as_tuple=True)
        logits = self.model.get_output_embeddings()(hidden[rows, batch.logit_positions[rows, steps]])
        found = token_logprobs(logits, batch.completion_ids[rows, steps], self.allowed, self.temperature)
        empty = torch.zeros_like(batch.completion_mask)
        logprobs, entropy = (empty.to(values.dtype).index_put((rows, steps), values) for values in found)
        return logprobs, entropy


def freeze(adapter: PolicyAdapter | type[PolicyAdapter], model: PreTrainedModel, freeze_encoder: bool) -> None:
    """Leave a gradient to the parameters that are learnt: LoRA alone where the model has it."""
    only_lora = has_lora(model)
    for name, parameter in model.named_parameters():
        frozen = not is_lora(name) if only_lora else freeze_encoder and adapter.is_encoder(name)
        # Some are never learnt, as the sinusoids of an encoder's positions.
        parameter.requires_grad_(parameter.requires_grad and not frozen)
