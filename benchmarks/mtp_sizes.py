"""Backbones with made-up weights of growing size, whose next token and whose heads' guesses are known beforehand."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import Qwen3ASRConfig, Qwen3ASRForConditionalGeneration

from policies.load import load_adapter
from policies.mtp.heads import new_heads

BLOCKS = 5


@dataclass(frozen=True)
class Size:
    """Of the decoder; the encoder stays tiny."""

    width: int
    layers: int


SIZES = {
    "128 wide, 4 layers": Size(128, 4),
    "512 wide, 8 layers": Size(512, 8),
    "1024 wide, 12 layers": Size(1024, 12),
    "2048 wide, 16 layers": Size(2048, 16),
}


def build_size(base: Path, size: Size, holds: int, path: Path) -> int:
    """Write a checkpoint with the tokenizer of `base`; returns the parameters of its decoder.

    Every layer is computed and adds nothing, so that the last state is the embedding of the token read; the output head
    is that embedding moved on by one token. The first `holds` blocks do the same, and later ones guess what was read.
    """
    config = Qwen3ASRConfig.from_pretrained(base)
    config.text_config.update(
        {
            "hidden_size": size.width,
            "intermediate_size": 3 * size.width,
            "num_hidden_layers": size.layers,
            "num_attention_heads": size.width // 64,
            "num_key_value_heads": max(1, size.width // 128),
            "head_dim": 64,
            "layer_types": ["full_attention"] * size.layers,
        }
    )
    config.audio_config.output_dim = size.width
    adapter = load_adapter("qwen3_asr", base)
    torch.manual_seed(0)
    model = Qwen3ASRForConditionalGeneration(config).eval()
    decoder = model.get_decoder()
    said = torch.tensor([token for token in adapter.completion_token_ids if token not in adapter.end_token_ids])
    with torch.no_grad():
        for layer in decoder.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        embedding = decoder.embed_tokens.weight
        embedding.copy_(torch.nn.functional.normalize(torch.randn_like(embedding), dim=-1))
        model.lm_head.weight.copy_(embedding)
        model.lm_head.weight[said.roll(-1)] = embedding[said]
        heads = new_heads(model, BLOCKS, adapter.end_token_ids)
        for number, block in enumerate(heads.blocks):
            block.join.weight[:, : size.width] = 0
            if number >= holds:
                block.join.weight.neg_()
    adapter.save(model, path)
    heads.save(path, model)
    return sum(parameter.numel() for parameter in decoder.parameters())
