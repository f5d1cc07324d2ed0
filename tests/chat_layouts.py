"""Small random checkpoints of the chat layouts, entries of `tests.layouts`."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    Qwen2_5OmniConfig,
    Qwen2_5OmniProcessor,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
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
    if tied:
        model.lm_head.weight = model.get_input_embeddings().weight
    roughen(model)
    config.save_pretrained(path)
    Qwen2AudioProcessor(WhisperFeatureExtractor(feature_size=128, chunk_length=WINDOW), tokenizer).save_pretrained(path)
    load_adapter("qwen2_audio", path).save(model, path)


def build_qwen2_5_omni(path: Path, tied: bool) -> None:
    """The vision tower, which no audio prompt reaches, is as small as its code allows."""
    tokenizer = chat_tokenizer(
        audio_bos_token="<|audio_bos|>",
        audio_token="<|AUDIO|>",
        audio_eos_token="<|audio_eos|>",
        vision_bos_token="<|vision_bos|>",
        image_token="<|IMAGE|>",
        video_token="<|VIDEO|>",
        vision_eos_token="<|vision_eos|>",
    )
    token_id = tokenizer.convert_tokens_to_ids
    text = decoder(tokenizer, tied) | {
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6]}
    }
    vision = {"depth": 1, "hidden_size": 32, "num_heads": 1, "intermediate_size": 32, "out_hidden_size": 64}
    thinker = Qwen2_5OmniThinkerConfig(
        audio_config={**ENCODER, "output_dim": 64},
        text_config=text,
        vision_config=vision | {"fullatt_block_indexes": [0]},
        audio_token_index=token_id("<|AUDIO|>"),
        image_token_index=token_id("<|IMAGE|>"),
        video_token_index=token_id("<|VIDEO|>"),
        audio_start_token_id=token_id("<|audio_bos|>"),
        audio_end_token_id=token_id("<|audio_eos|>"),
        vision_start_token_id=token_id("<|vision_bos|>"),
        vision_end_token_id=token_id("<|vision_eos|>"),
        tie_word_embeddings=tied,
    )
    torch.manual_seed(0)
    model = Qwen2_5OmniThinkerForConditionalGeneration(thinker)
    roughen(model)
    Qwen2_5OmniConfig(thinker_config=thinker.to_dict()).save_pretrained(path)
    Qwen2_5OmniProcessor(
        Qwen2VLImageProcessor(),
        Qwen2VLVideoProcessor(),
        WhisperFeatureExtractor(feature_size=128, chunk_length=30, return_attention_mask=True),
        tokenizer,
    ).save_pretrained(path)
    load_adapter("qwen2_5_omni_thinker", path).save(model, path)
