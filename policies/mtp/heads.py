"""Heads that guess the tokens after the next: K decoder blocks behind the backbone's last state.

Block h reads the state that block h - 1 left at a position (block 1: the backbone's own) and the token h places on, and
predicts the token at offset 1 + h, so that a forward of the backbone can settle K + 1 tokens (StepAudio 2.5; blocks in
a chain as in DeepSeek-V3, 2412.19437). Each starts as a copy of the backbone's last decoder layer; embedding and output
head are the backbone's own.

A block attends to what is settled: its keys and values at position t are made of the backbone's state there and of
token t + 1, whatever block it is. Training and drafting therefore see the same, and a draft that is rejected leaves
nothing behind but what the next forward overwrites.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoConfig, PreTrainedModel
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer, Qwen3RMSNorm, apply_rotary_pos_emb

from policies.mtp.config import MtpConfig
from policies.weights import checksum
from rlhf_platform.errors import RecipeError

FOLDER = "mtp"
"""Where a checkpoint has its heads."""
Memory = tuple[Tensor, Tensor]
"""Keys and values of the settled positions, each (B, key heads, S, width of a head)."""
Rope = tuple[Tensor, Tensor]
"""Cosines and sines of positions, each (B, S, width of a head)."""


class MtpBlock(nn.Module):
    """One block."""

    def __init__(self, config: Any, layer: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.token_norm = Qwen3RMSNorm(width, eps=config.rms_norm_eps)
        self.join = nn.Linear(2 * width, width, bias=False)
        self.layer = Qwen3DecoderLayer(config, layer)
        self.norm = Qwen3RMSNorm(width, eps=config.rms_norm_eps)

    def joined(self, states: Tensor, tokens: Tensor) -> Tensor:
        """What the layer reads, (B, S, H), of states and the embeddings of tokens, both (B, S, H)."""
        joined: Tensor = self.join(torch.cat([states, self.token_norm(tokens)], dim=-1))
        return joined

    def memory(self, states: Tensor, tokens: Tensor, rope: Rope) -> Memory:
        """Keys and values of positions: of the backbone's states there and the embeddings of the tokens after them."""
        read = self.layer.input_layernorm(self.joined(states, tokens))
        attention = self.layer.self_attn
        keys = attention.k_norm(_by_head(attention.k_proj(read), attention.head_dim))
        values = _by_head(attention.v_proj(read), attention.head_dim)
        keys, _ = apply_rotary_pos_emb(keys.transpose(1, 2), keys.transpose(1, 2), *rope)
        return keys, values.transpose(1, 2)

    def forward(self, states: Tensor, tokens: Tensor, memory: Memory, rope: Rope) -> Tensor:
        """The state (B, S, H) that predicts, from those of the block before and the embeddings of the tokens reached.

        Where `memory` has as many positions as there are states, position t sees up to t; one state alone sees all.
        """
        joined = self.joined(states, tokens)
        attention = self.layer.self_attn
        read = self.layer.input_layernorm(joined)
        queries = attention.q_norm(_by_head(attention.q_proj(read), attention.head_dim)).transpose(1, 2)
        queries, _ = apply_rotary_pos_emb(queries, queries, *rope)
        causal = queries.shape[2] == memory[0].shape[2] > 1
        seen = scaled_dot_product_attention(
            queries, *memory, is_causal=causal, scale=attention.scaling, enable_gqa=True
        )
        mixed = joined + attention.o_proj(seen.transpose(1, 2).flatten(-2))
        found: Tensor = self.norm(mixed + self.layer.mlp(self.layer.post_attention_layernorm(mixed)))
        return found


class MtpHeads(nn.Module):
    """All blocks."""

    blocks: Any
    """A list of MtpBlock."""

    def __init__(self, config: MtpConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(MtpBlock(config, layer) for layer in range(config.num_hidden_layers))

    def forward(self, states: Tensor, tokens: Tensor, rope: Rope) -> list[Tensor]:
        """States (B, S, H) of each block at every position of sequences that are known.

        `states`, `tokens`: the backbone's last states and the embeddings of what it read, (B, S, H). Block h has no
        token at the last h positions; what it says there means nothing.
        """
        settled, found = states, []
        following = _shifted(tokens, 1)
        for number, block in enumerate(self.blocks, start=1):
            states = block(states, _shifted(tokens, number), block.memory(settled, following, rope), rope)
            found.append(states)
        return found

    def save(self, path: Path, backbone: PreTrainedModel) -> None:
        """Write the heads to `path/mtp`, marked as those of the backbone's present weights."""
        folder = path / FOLDER
        self.config.backbone_checksum = backbone_checksum(backbone.get_input_embeddings().weight)
        self.config.save_pretrained(folder)
        save_file(
            {name: value.detach().contiguous().cpu() for name, value in self.state_dict().items()},
            folder / "model.safetensors",
            metadata={"format": "pt"},
        )


def new_heads(backbone: PreTrainedModel, blocks: int, end_token_ids: Sequence[int]) -> MtpHeads:
    """Heads that are to be fitted: each block a copy of the last decoder layer, reading its state and token summed."""
    decoder = backbone.get_decoder()
    sizes = decoder.config.to_dict() | {"num_hidden_layers": blocks, "layer_types": ["full_attention"] * blocks}
    sizes = {name: value for name, value in sizes.items() if name not in ("architectures", "model_type")}
    heads = MtpHeads(MtpConfig(end_token_ids=tuple(end_token_ids), **sizes)).to(backbone.dtype)
    identity = torch.eye(decoder.config.hidden_size, dtype=backbone.dtype)
    with torch.no_grad():
        for block in heads.blocks:
            block.layer.load_state_dict(copy.deepcopy(decoder.layers[-1].state_dict()))
            block.norm.load_state_dict(decoder.norm.state_dict())
            block.join.weight.copy_(torch.cat([identity, identity], dim=1))
    return heads


def load_heads(path: Path, backbone: PreTrainedModel) -> MtpHeads:
    """The heads in the folder `path`, for this backbone. Raises RecipeError when they are not its own."""
    config = MtpConfig.from_pretrained(path)
    check_heads(path, config, backbone.get_input_embeddings().weight, backbone.get_decoder().config)
    heads = MtpHeads(config).to(backbone.dtype)
    heads.load_state_dict(load_file(path / "model.safetensors"))
    return heads


def check_folder(model: Path) -> None:
    """Raise RecipeError unless the checkpoint in the folder `model` has heads that are its own."""
    path = model / FOLDER
    if not (path / "config.json").is_file():
        raise RecipeError(
            f"rollout.speculative is mtp, and {model} has no heads (no folder {FOLDER} in it); fit some (mtp.steps), "
            "or set rollout.speculative to none"
        )
    config = AutoConfig.from_pretrained(model).get_text_config(decoder=True)
    check_heads(path, MtpConfig.from_pretrained(path), _stored_embedding(model), config)


def check_heads(path: Path, config: MtpConfig, embedding: Tensor, decoder: Any) -> None:
    """Raise RecipeError unless the heads of this configuration belong to the backbone.

    `embedding` (V, H), `decoder`: the backbone's, and the configuration of its decoder.
    """
    for size in ("hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size"):
        ours, theirs = getattr(config, size), getattr(decoder, size)
        if ours != theirs:
            raise RecipeError(
                f"the heads in {path} have {size} {ours}, the backbone's decoder has {theirs}: they are another "
                "backbone's; set mtp.steps to fit new ones"
            )
    if config.backbone_checksum != backbone_checksum(embedding):
        raise RecipeError(
            f"the heads in {path} were fitted to other weights than this backbone's: they would guess at random; name "
            "the checkpoint that they were saved with, or set mtp.steps to fit new ones"
        )


def backbone_checksum(embedding: Tensor) -> int:
    """What tells one backbone from another: CRC-32 of its embedding, in bfloat16, so that the type does not matter."""
    return checksum({"embedding": embedding.to(torch.bfloat16)})


def _stored_embedding(model: Path) -> Tensor:
    for file in sorted(model.glob("*.safetensors")):
        with safe_open(file, "pt") as stored:
            for name in stored.keys():  # noqa: SIM118 - not a dict
                if name.endswith("embed_tokens.weight"):
                    found: Tensor = stored.get_tensor(name)
                    return found
    return torch.empty(0)


def rope_of(backbone: PreTrainedModel, like: Tensor, positions: Tensor) -> Rope:
    """Cosines and sines of positions (B, S) as the backbone's decoder turns its keys, in the type of `like`."""
    found: Rope = backbone.get_decoder().rotary_emb(like, positions)
    return found


def _by_head(values: Tensor, width: int) -> Tensor:
    return values.view(*values.shape[:-1], -1, width)


def _shifted(values: Tensor, places: int) -> Tensor:
    """(B, S, H): at position t what was at t + `places`, and 0 beyond the end."""
    return torch.cat([values[:, places:], torch.zeros_like(values[:, :places])], dim=1)
