"""A small backbone from nothing, in the Qwen3-ASR layout: what `backbone.tiny` in a recipe describes."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Qwen3ASRConfig, Qwen3ASRForConditionalGeneration, Qwen3ASRProcessor
from transformers.models.qwen3_asr import Qwen3ASRFeatureExtractor

from policies.tokenizer import train_tokenizer
from rlhf_platform.recipe.backbone import TinyBackbone

HEAD_WIDTH = 32


def build_tiny(spec: TinyBackbone, texts: Iterable[str], window: float, path: Path) -> None:
    """Write an untrained backbone to `path` in Hugging Face layout.

    `texts`: what the text pieces are learnt from. `window`: longest clip in seconds.
    """
    tokenizer = train_tokenizer(texts, spec.text_pieces, spec.audio_slots)
    config = tiny_config(
        spec,
        vocabulary=len(tokenizer),
        audio_token_id=tokenizer.convert_tokens_to_ids("<|audio_pad|>"),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=[tokenizer.eos_token_id],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        model = Qwen3ASRForConditionalGeneration(config)
        _scale_initial_weights(model)
    model.save_pretrained(path)
    Qwen3ASRProcessor(Qwen3ASRFeatureExtractor(chunk_length=math.ceil(window)), tokenizer).save_pretrained(path)


def tiny_config(spec: TinyBackbone, vocabulary: int, **tokens: Any) -> Qwen3ASRConfig:
    """The configuration for a vocabulary of so many tokens. `tokens`: the ids of those that have a task."""
    width = spec.hidden_size
    return Qwen3ASRConfig(
        audio_config={
            "encoder_layers": spec.encoder_layers,
            "encoder_attention_heads": spec.attention_heads,
            "encoder_ffn_dim": 3 * width,
            "d_model": width,
            "output_dim": width,
            "downsample_hidden_size": spec.conv_channels,
        },
        text_config={
            "vocab_size": vocabulary,
            "hidden_size": width,
            "intermediate_size": 3 * width,
            "num_hidden_layers": spec.decoder_layers,
            "num_attention_heads": spec.attention_heads,
            "num_key_value_heads": spec.key_value_heads,
            "head_dim": HEAD_WIDTH,
            "max_position_embeddings": spec.max_positions,
            "tie_word_embeddings": False,
        },
        # Tied, vLLM keeps the old output head after a weight sync without a word; see design law 4.
        tie_word_embeddings=False,
        **tokens,
    )


def _scale_initial_weights(model: nn.Module) -> None:
    """Fan-in scaling (1502.01852): the layout's own 0.02 is for widths near 2,500 and starves a small encoder."""
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            continue
        fan_in = parameter[0].numel()
        gain = 2.0 if "conv2d" in name else 1.0
        std = 0.3 if "embed_tokens" in name else (gain / fan_in) ** 0.5
        nn.init.normal_(parameter, 0.0, std)
