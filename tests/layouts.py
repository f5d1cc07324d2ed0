"""A small random checkpoint of every layout that `backbone.adapter` names: the real architecture, a few 100,000
parameters, no bias or norm at the 0 or 1 where a forward pass cannot tell whether it was loaded, sent or applied."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LlamaConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)

from policies.load import load_adapter
from policies.tokenizer import train_tokenizer
from tests.chat_layouts import build_qwen2_5_omni, build_qwen2_audio
from tests.orpheus import build_orpheus
from tests.roughen import roughen
from tests.tiny import TEXTS, write_checkpoint

WHISPER_WINDOW = 4


@dataclass(frozen=True)
class Layout:
    """One entry: `build(path, tied)` writes the checkpoint. `ties`: which ties of head and embedding it allows.
    `max_tokens`: what the longest prompt of `tests.tiny.write_clips` and a completion take."""

    adapter: str
    build: Callable[[Path, bool], None]
    ties: tuple[bool, ...] = (False, True)
    max_tokens: int = 64


def build_qwen3_asr(path: Path, tied: bool) -> None:
    write_checkpoint(path)
    if tied:
        adapter = load_adapter("qwen3_asr", path)
        model = adapter.load_model(torch.float32)
        model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = True
        model.lm_head.weight = model.get_input_embeddings().weight
        model.tie_weights()
        adapter.save(model, path)


def build_whisper(path: Path, tied: bool) -> None:
    assert tied, "Whisper's head is its embedding"
    pieces = train_tokenizer(TEXTS, text_pieces=300, audio_slots=0)
    vocab = {token: index for token, index in pieces.get_vocab().items() if index < 300}
    merges = [tuple(pair) for pair in json.loads(pieces._tokenizer.to_str())["model"]["merges"]]
    tokenizer = WhisperTokenizer(vocab=vocab, merges=merges)
    names = ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|nospeech|>", "<|notimestamps|>"]
    tokenizer.add_tokens(names, special_tokens=True)
    end = tokenizer.eos_token_id
    config = WhisperConfig(
        vocab_size=len(tokenizer),
        num_mel_bins=80,
        d_model=64,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        max_source_positions=WHISPER_WINDOW * 50,
        max_target_positions=64,
        decoder_start_token_id=tokenizer.convert_tokens_to_ids("<|startoftranscript|>"),
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        suppress_tokens=None,
        begin_suppress_tokens=None,
        init_std=0.1,
    )
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(config)
    roughen(model)
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=end, suppress_tokens=[5, 9])
    model.save_pretrained(path)
    extractor = WhisperFeatureExtractor(feature_size=80, chunk_length=WHISPER_WINDOW)
    WhisperProcessor(extractor, tokenizer).save_pretrained(path)


def build_codec_lm(path: Path, tied: bool, config: type[PreTrainedConfig] = LlamaConfig) -> None:
    tokenizer = train_tokenizer(TEXTS, text_pieces=300, audio_slots=24)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        config(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=32,
            max_position_embeddings=128,
            initializer_range=0.1,
            tie_word_embeddings=tied,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    roughen(model)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)


LAYOUTS = {
    "qwen2_5_omni_thinker": Layout("qwen2_5_omni_thinker", build_qwen2_5_omni, max_tokens=256),
    "qwen2_audio": Layout("qwen2_audio", build_qwen2_audio, max_tokens=192),
    "qwen3_asr": Layout("qwen3_asr", build_qwen3_asr),
    "whisper": Layout("whisper", build_whisper, ties=(True,)),
    "codec_llama": Layout("codec_lm", build_codec_lm),
    "codec_qwen2": Layout("codec_lm", partial(build_codec_lm, config=Qwen2Config)),
    "codec_qwen3": Layout("codec_lm", partial(build_codec_lm, config=Qwen3Config)),
    "orpheus": Layout("orpheus", build_orpheus, max_tokens=96),
}
CASES = [(name, tied) for name, layout in LAYOUTS.items() for tied in layout.ties]
"""(layout, tied) of every checkpoint."""
ALIKE = ("codec_qwen2", "codec_qwen3", "orpheus")
"""Served by the code of `codec_llama`: left to the slow tests where each layout starts an engine."""
HEARING = [name for name, layout in LAYOUTS.items() if layout.adapter not in ("codec_lm", "orpheus")]
"""Layouts whose prompts have audio."""
