"""The heads of `policies.mtp` as vLLM drafts with them: the model, and what proposes with it.

Verification, rejection sampling and the KV cache are vLLM's own. What it lacks is a drafter whose blocks differ and all
remember what is settled: its own takes one layer for every token, or fills the memory of the first layer alone.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from vllm.config import VllmConfig
from vllm.forward_context import get_forward_context
from vllm.model_executor.layers.attention.attention import unified_kv_cache_update
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.linear import ReplicatedLinear
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.model_loader.reload.inplace import reload_weights
from vllm.model_executor.models.qwen2 import Qwen2Model
from vllm.model_executor.models.qwen3 import Qwen3DecoderLayer
from vllm.model_executor.models.utils import AutoWeightsLoader, WeightsMapper
from vllm.v1.spec_decode.eagle import EagleProposer

from policies.mtp.acceptance import Acceptance


class MtpBlock(nn.Module):
    """As `policies.mtp.heads.MtpBlock`, on vLLM's layers and KV cache."""

    def __init__(self, vllm_config: VllmConfig, config: Any, prefix: str) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.rms_norm_eps
        self.token_norm, self.norm = RMSNorm(width, eps=eps), RMSNorm(width, eps=eps)
        self.join = ReplicatedLinear(2 * width, width, bias=False, prefix=f"{prefix}.join")
        self.layer = Qwen3DecoderLayer(config, cache_config=vllm_config.cache_config, prefix=f"{prefix}.layer")

    def joined(self, states: Tensor, tokens: Tensor) -> Tensor:
        joined: Tensor = self.join(torch.cat([states, self.token_norm(tokens)], dim=-1))[0]
        return joined

    def remember(self, positions: Tensor, states: Tensor, tokens: Tensor) -> None:
        """Put the keys and values of these positions into the cache."""
        attention = self.layer.self_attn
        _, keys, values = self._projected(positions, self.layer.input_layernorm(self.joined(states, tokens)))
        shape = (-1, attention.num_kv_heads, attention.head_dim)
        unified_kv_cache_update(keys.view(shape), values.view(shape), attention.attn.layer_name)

    def forward(self, positions: Tensor, states: Tensor, tokens: Tensor) -> Tensor:
        joined, attention = self.joined(states, tokens), self.layer.self_attn
        queries, _, _ = self._projected(positions, self.layer.input_layernorm(joined))
        mixed, _ = attention.o_proj(attention.attn(queries, None, None))
        mixed, joined = self.layer.post_attention_layernorm(mixed, joined)
        found: Tensor = self.norm(self.layer.mlp(mixed), joined)[0]
        return found

    def _projected(self, positions: Tensor, read: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        attention = self.layer.self_attn
        queries, keys, values = attention.qkv_proj(read)[0].split(
            [attention.q_size, attention.kv_size, attention.kv_size], dim=-1
        )
        width = attention.head_dim
        queries = attention.q_norm(queries.unflatten(-1, (-1, width))).flatten(-2)
        keys = attention.k_norm(keys.unflatten(-1, (-1, width))).flatten(-2)
        queries, keys = attention.rotary_emb(positions, queries, keys)
        return queries, keys, values


class Blocks(nn.Module):
    """The blocks, beside the embedding that the proposer takes from the backbone."""

    blocks: Any
    """A list of MtpBlock."""

    def __init__(self, vllm_config: VllmConfig, config: Any) -> None:
        super().__init__()
        first = vllm_config.model_config.get_total_num_hidden_layers()  # numbers of layers are unique in the cache
        self.blocks = nn.ModuleList(
            MtpBlock(vllm_config, config, f"mtp.blocks.{first + number}") for number in range(config.num_hidden_layers)
        )
        self.embed_tokens: nn.Module


class SpeechMtp(nn.Module):
    """The draft model. `block`: which of its blocks guesses next; the proposer says."""

    hf_to_vllm_mapper = WeightsMapper(orig_to_new_prefix={"blocks.": "model.blocks."}) | Qwen2Model.hf_to_vllm_mapper

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        assert vllm_config.speculative_config is not None
        self.config = vllm_config.speculative_config.draft_model_config.hf_config
        self.model = Blocks(vllm_config, self.config)
        self.logits_processor = LogitsProcessor(self.config.vocab_size)
        self.lm_head: nn.Module
        self.block = 0

    def embed_input_ids(self, input_ids: Tensor) -> Tensor:
        found: Tensor = self.model.embed_tokens(input_ids)
        return found

    def forward(
        self, input_ids: Tensor, positions: Tensor, hidden_states: Tensor, inputs_embeds: Tensor | None = None
    ) -> Tensor:
        """States (N, H) that predict the next guess.

        For block 0, `hidden_states` are the backbone's at all positions that its forward was over, and `input_ids` the
        tokens after each; what was rejected among them is overwritten by the next forward. For a later block they are
        the state of the block before, and the token that it guessed.
        """
        tokens = self.embed_input_ids(input_ids)
        if self.block == 0 and get_forward_context().attn_metadata is not None:
            for block in self.model.blocks:
                block.remember(positions, hidden_states, tokens)
        found: Tensor = self.model.blocks[self.block](positions, hidden_states, tokens)
        return found

    def compute_logits(self, hidden_states: Tensor) -> Tensor:
        logits: Tensor = self.logits_processor(self.lm_head, hidden_states)
        return logits

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        loaded: set[str] = AutoWeightsLoader(self).load_weights(weights, mapper=self.hf_to_vllm_mapper)
        return loaded


class MtpProposer(EagleProposer):
    """vLLM's proposer, with a block of its own for each guess, and a count of what becomes of the guesses."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, runner: Any) -> None:
        super().__init__(vllm_config, device, runner)
        # A guess sees what is settled and nothing else, so positions and lengths stay as they are while it is made.
        self.constant_draft_positions = True
        self.acceptance = Acceptance()

    def load_model(self, target_model: Any) -> None:
        # What the base class copies into the draft model's configuration, under the name that it has for pictures.
        target_model.config.image_token_index = target_model.config.audio_token_id
        super().load_model(target_model)

    def reload(self, weights: list[tuple[str, Tensor]]) -> None:
        """Take new weights for the blocks, in place. Embedding and output head are the backbone's, and stay out."""
        model: Any = self.model
        head, embedding = model.lm_head, model.model.embed_tokens
        del model.lm_head, model.model.embed_tokens
        try:
            reload_weights(self.vllm_config, model, weights, None, is_checkpoint_format=True)
        finally:
            model.lm_head, model.model.embed_tokens = head, embedding

    def propose(self, *arguments: Any, **named: Any) -> Tensor:
        self.model.block = 0
        found: Tensor = super().propose(*arguments, **named)
        self.model.block = 0
        return found

    def _sample_draft_tokens(self, *arguments: Any) -> tuple[Tensor, Tensor | None]:
        found: tuple[Tensor, Tensor | None] = super()._sample_draft_tokens(*arguments)
        self.model.block += 1
        return found

    def prepare_next_token_ids_padded(self, sampled_token_ids: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        self._sampled = sampled_token_ids
        found: tuple[Tensor, Tensor] = super().prepare_next_token_ids_padded(sampled_token_ids, *rest)
        return found

    def prepare_inputs_padded(self, common: Any, drafts: Any, counts: Tensor) -> Any:
        ends = set(self.draft_model_config.hf_config.end_token_ids)
        for tokens, drafted in zip(self._sampled.tolist(), drafts.num_draft_tokens, strict=True):
            settled = [token for token in tokens if token >= 0]
            if drafted and settled:
                self.acceptance.count(settled, drafted, ends)
        return super().prepare_inputs_padded(common, drafts, counts)
