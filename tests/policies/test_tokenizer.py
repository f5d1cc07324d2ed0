"""Any text can be written, and nothing that is written is a control or audio token."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, Qwen2Tokenizer

from policies.tokenizer import CONTROL_TOKENS, audio_slot, train_tokenizer

SLOTS = 16
TOKENIZER = train_tokenizer(["alpha bravo", "charlie seven nine"], 300, SLOTS)
# What UTF-8 can hold: all of Unicode but lone surrogates.
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NAMES = [*CONTROL_TOKENS, *(audio_slot(i) for i in range(SLOTS))]


def pieces(text: str, tokenizer: Qwen2Tokenizer = TOKENIZER) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)


@given(TEXT)
def test_any_text_comes_back_in_its_composed_form(text: str) -> None:
    assert TOKENIZER.decode(pieces(text)) == unicodedata.normalize("NFC", text)


@given(st.lists(st.one_of(TEXT, st.sampled_from(NAMES))).map("".join))
def test_text_never_becomes_a_control_or_audio_token(text: str) -> None:
    ids = pieces(text)
    assert not set(ids) & set(TOKENIZER.added_tokens_decoder)
    assert TOKENIZER.decode(ids) == unicodedata.normalize("NFC", text)


def test_control_tokens_and_audio_slots_are_single_ids_at_the_end_of_the_vocabulary() -> None:
    ids = [TOKENIZER.encode(name, add_special_tokens=False) for name in NAMES]
    assert all(len(one) == 1 for one in ids)
    assert {one[0] for one in ids} == set(range(len(TOKENIZER) - len(NAMES), len(TOKENIZER)))
    slots = [one[0] for one in ids[len(CONTROL_TOKENS) :]]
    assert slots == list(range(slots[0], slots[0] + SLOTS))
    assert sorted(TOKENIZER.get_vocab().values()) == list(range(len(TOKENIZER)))


def test_words_of_the_layout_and_of_the_texts_are_short() -> None:
    assert [TOKENIZER.decode([i]) for i in pieces("user\n")] == ["user", "\n"]
    assert len(pieces("language English")) == 2
    assert len(pieces("alpha")) < len("alpha")


def test_a_vocabulary_that_cannot_hold_every_byte_is_refused() -> None:
    with pytest.raises(ValueError, match="text_pieces is 255: a byte-level vocabulary needs at least 256"):
        train_tokenizer([], 255, 0)
    smallest = train_tokenizer([], 256, 0)
    assert smallest.decode(pieces("héllo ☎", smallest)) == "héllo ☎"


def test_the_same_texts_give_the_same_tokenizer_and_it_survives_saving(tmp_path: Path) -> None:
    again = train_tokenizer(["alpha bravo", "charlie seven nine"], 300, SLOTS)
    again.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert again.get_vocab() == loaded.get_vocab() == TOKENIZER.get_vocab()
    assert pieces("alpha Bravo? 12", loaded) == pieces("alpha Bravo? 12")
    assert loaded.eos_token == "<|im_end|>"
    assert loaded.pad_token == "<|endoftext|>"
