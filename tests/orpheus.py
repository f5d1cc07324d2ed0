"""A tiny Orpheus: its real tokens and a small random Llama."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from policies.speaking import SpeechLayout
from policies.tokenizer import train_tokenizer
from tests.roughen import roughen
from tests.tiny import TEXTS

CODES = 32
"""Entries of each of the seven codebooks, where the published model has 4,096."""
LAYOUT = SpeechLayout(
    codec="snac",
    codec_path=None,
    codebooks=(CODES,) * 7,
    frame_rate=12.0,
    instructions="inline",
    shortest=0.03,
    longest=0.15,
)


def write_tokenizer(path: Path, text_tokens: int, codes: int) -> None:
    """Llama 3's layout: byte-level pieces and nameless ones up to `text_tokens`, 256 control tokens with bos at 0 and
    eot at 9, then Orpheus's, none of which is called special."""
    pieces = train_tokenizer(TEXTS, text_pieces=300, audio_slots=0)
    model = json.loads(pieces._tokenizer.to_str())["model"]
    vocab = {piece: index for piece, index in model["vocab"].items() if index < 300}
    vocab |= {f"unused {index}": index for index in range(len(vocab), text_tokens)}
    bpe = Tokenizer(BPE(vocab=vocab, merges=[tuple(pair) for pair in model["merges"]]))
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    begin, end = "<|begin_of_text|>", "<|eot_id|>"
    bpe.post_processor = processors.TemplateProcessing(single=f"{begin} $A", special_tokens=[(begin, text_tokens)])
    reserved = [f"<|reserved_special_token_{number}|>" for number in range(254)]
    bpe.add_special_tokens([begin, *reserved[:8], end, *reserved[8:]])
    bpe.add_tokens([f"<custom_token_{number}>" for number in range(10 + 7 * codes)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=begin, eos_token=end)
    tokenizer.save_pretrained(path)


def build_orpheus(path: Path, tied: bool) -> None:
    write_tokenizer(path, text_tokens=300, codes=CODES)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=300 + 256 + 10 + 7 * CODES,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=32,
            max_position_embeddings=256,
            initializer_range=0.1,
            tie_word_embeddings=tied,
            bos_token_id=300,
            eos_token_id=309,
        )
    )
    roughen(model)
    model.save_pretrained(path)
