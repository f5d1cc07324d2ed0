"""One vocabulary for the three branches: byte-level BPE text pieces, the layout's control tokens, audio-token slots."""

import json
from collections.abc import Callable, Iterable
from itertools import count, takewhile

from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerBase, Qwen2Tokenizer

CONTROL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|audio_start|>",
    "<|audio_end|>",
    "<|audio_pad|>",
    "<asr_text>",
)


def audio_slot(index: int) -> str:
    """The token of codec entry `index`, counted from 0."""
    return f"<|audio_{index}|>"


def orpheus_token(number: int) -> str:
    """A token that Orpheus adds to Llama's, counted from 0: turns and marks are the first ten, then codec entries."""
    return f"<custom_token_{number}>"


def orpheus_slot(index: int) -> str:
    """As `audio_slot`, in the vocabulary of Orpheus."""
    return orpheus_token(10 + index)


SLOTS: tuple[Callable[[int], str], ...] = (audio_slot, orpheus_slot)
"""How vocabularies name their codec tokens."""


def audio_token_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The codec tokens of a vocabulary, in the order of the codec's entries; none in one without."""
    vocabulary = tokenizer.get_vocab()
    found = (takewhile(vocabulary.__contains__, map(slot, count())) for slot in SLOTS)
    return tuple(vocabulary[name] for names in found for name in names)


def vocabulary_size(text_pieces: int, audio_slots: int) -> int:
    """Tokens of `train_tokenizer` when the texts have as many pieces as are asked for."""
    return text_pieces + len(CONTROL_TOKENS) + audio_slots


def train_tokenizer(texts: Iterable[str], text_pieces: int, audio_slots: int) -> Qwen2Tokenizer:
    """A Qwen2-layout tokenizer learnt from `texts`.

    `text_pieces`: size of the text vocabulary, at least 256 (every byte has a piece, so any text can be written).
    `audio_slots`: codec tokens appended after the control tokens; the TTS branch fills them.
    """
    if text_pieces < 256:
        raise ValueError(f"text_pieces is {text_pieces}: a byte-level vocabulary needs at least 256")
    # Qwen2Tokenizer sets up its own normaliser and splitting; the same splitting has to be used for learning.
    splitter = Qwen2Tokenizer()._tokenizer.pre_tokenizer
    bpe = Tokenizer(BPE())
    bpe.pre_tokenizer = splitter
    # The words of the prompt layout stand in every prompt; as single pieces they keep prompts short.
    layout = ["language English", "user\n", "assistant\n"] * 1000
    bpe.train_from_iterator(
        [*layout, *texts],
        BpeTrainer(
            vocab_size=text_pieces,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    model = json.loads(bpe.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(pair) for pair in model["merges"]],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={
            "audio_bos_token": "<|audio_start|>",
            "audio_token": "<|audio_pad|>",
            "audio_eos_token": "<|audio_end|>",
        },
    )
    tokenizer.add_tokens(list(CONTROL_TOKENS), special_tokens=True)
    tokenizer.add_tokens([audio_slot(i) for i in range(audio_slots)], special_tokens=True)
    return tokenizer
