"""Small random checkpoints of the chat layouts, entries of `tests.layouts`."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    Qwen2Tokenizer,
    WhisperFeatureExtractor,
)

from policies.load import load_adapter
from policies.tokenizer import train_tokenizer
from tests.roughen import roughen
from tests.tiny import TEXTS

WINDOW = 4
PIECES = 300
AUDIO_MARKS = ("<|audio_bos|>", "<|AUDIO|>", "<|audio_eos|>")


def chat_tokenizer(*names: str, **named: str) -> Qwen2Tokenizer:
    """Text pieces and the control tokens `names`; `named` are those that the tokenizer knows by attribute."""
    trained = train_tokenizer(TEXTS, text_pieces=PIECES, audio_slots=0)
    tokenizer = Qwen2Tokenizer(
        vocab={token: index for token, index in trained.get_vocab().items() if index < PIECES},
        merges=[tuple(pair) for pair in json.loads(trained._tokenizer.to_str())["model"]["merges"]],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=named,
    )
    tokenizer.add_tokens(["<|im_start|>", *names], special_tokens=True)
    return tokenizer


def decoder(tokenizer: Qwen2Tokenizer, tied: bool) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 256,
        "initializer_range": 0.1,
        "tie_word_embeddings": tied,
    }


ENCODER = {
    "num_mel_bins": 128,
    "d_model": 64,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 128,
    "initializer_range": 0.1,
}


def build_qwen2_audio(path: Path, tied: bool) -> None:
    tokenizer = chat_tokenizer(*AUDIO_MARKS)
    config = Qwen2AudioConfig(
        audio_config={**ENCODER, "max_source_positions": WINDOW * 50},
        text_config=decoder(tokenizer, tied),
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    torch.manual_seed(0)
    model = Qwen2AudioForConditionalGeneration(config)
    roughen(model)
    config.save_pretrained(path)
    Qwen2AudioProcessor(WhisperFeatureExtractor(feature_size=128, chunk_length=WINDOW), tokenizer).save_pretrained(path)
    load_adapter("qwen2_audio", path).save(model, path)
