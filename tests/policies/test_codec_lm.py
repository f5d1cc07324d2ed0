"""Language models over codec tokens: what they are asked, what they may write, what they learn, what is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from policies.codec_lm import CodecLMAdapter
from policies.load import load_adapter
from policies.tokenizer import audio_slot, train_tokenizer
from rlhf_platform.errors import DataError, RecipeError
from rlhf_platform.types import Prompt
from tests.layouts import LAYOUTS
from tests.tiny import TEXTS

PROMPT = Prompt("p1", "", "alpha bravo", "en", metadata={"codec": [3, 0, 23]})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("codec_lm")
    LAYOUTS["codec_llama"].build(path, True)
    return path


@pytest.fixture(scope="module")
def adapter(checkpoint: Path) -> CodecLMAdapter:
    return CodecLMAdapter(checkpoint)


@pytest.mark.parametrize(
    ("layout", "served_as"),
    [
        ("codec_llama", "LlamaForCausalLM"),
        ("codec_qwen2", "Qwen2ForCausalLM"),
        ("codec_qwen3", "Qwen3ForCausalLM"),
    ],
)
def test_the_class_that_serves_it_is_that_of_the_checkpoint(layout: str, served_as: str, tmp_path: Path) -> None:
    LAYOUTS[layout].build(tmp_path, False)
    assert load_adapter("codec_lm", tmp_path).vllm_architecture == served_as


def test_a_prompt_is_the_text_to_speak_in_a_users_turn_and_an_opened_answer(adapter: CodecLMAdapter) -> None:
    encoded = adapter.encode(PROMPT)
    assert adapter.tokenizer.decode(list(encoded.token_ids)) == (
        "<|im_start|>user\nalpha bravo<|im_end|>\n<|im_start|>assistant\n<|audio_start|>"
    )
    assert encoded.clips == ()
    assert adapter.vllm_prompt(PROMPT) == {"prompt_token_ids": list(encoded.token_ids)}


def test_a_text_that_spells_a_control_or_codec_token_stays_text(adapter: CodecLMAdapter) -> None:
    text = "a <|im_end|> <|audio_3|>"
    tokens = adapter.encode(replace(PROMPT, reference=text)).token_ids
    assert text in adapter.tokenizer.decode(list(tokens))
    assert tokens.count(adapter.end_token_ids[0]) == 1
    assert not set(tokens) & (set(adapter.completion_token_ids) - set(adapter.end_token_ids))


def test_a_completion_is_codec_tokens_and_the_end(adapter: CodecLMAdapter) -> None:
    names = [audio_slot(i) for i in range(24)]
    codec = adapter.tokenizer.convert_tokens_to_ids(names)
    end = adapter.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert adapter.completion_token_ids == tuple(sorted([*codec, end]))
    assert adapter.target(PROMPT) == (codec[3], codec[0], codec[23], end)
    assert adapter.completion_text(adapter.target(PROMPT)) == ""


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        ({}, "metadata has no list of codec indices named codec; encode its clip"),
        ({"codec": []}, "metadata has no list of codec indices named codec; encode its clip"),
        ({"codec": "1 2"}, "metadata has no list of codec indices named codec; encode its clip"),
        ({"codec": [1, 24]}, "metadata.codec holds 24: allowed whole numbers 0 to 23, "),
        ({"codec": [-1]}, "metadata.codec holds -1: allowed whole numbers 0 to 23, "),
        ({"codec": [1.0]}, "metadata.codec holds 1.0: allowed whole numbers 0 to 23, "),
        ({"codec": [True]}, "metadata.codec holds True: allowed whole numbers 0 to 23, "),
    ],
)
def test_without_codec_indices_of_this_vocabulary_there_is_no_target(
    adapter: CodecLMAdapter, metadata: dict[str, object], why: str
) -> None:
    with pytest.raises(DataError) as raised:
        adapter.target(replace(PROMPT, metadata=metadata))
    assert str(raised.value).startswith(f"prompt p1: {why}")
    assert "\n" not in str(raised.value)


def test_a_vocabulary_without_codec_tokens_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    train_tokenizer(TEXTS, text_pieces=300, audio_slots=0).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text((checkpoint / "config.json").read_text())
    with pytest.raises(RecipeError) as raised:
        load_adapter("codec_lm", tmp_path)
    assert str(raised.value) == (
        f"backbone.path is '{tmp_path}': its vocabulary has no codec tokens (<|audio_0|>, ...), so it cannot write "
        "speech; name a checkpoint that has them"
    )


def test_a_vocabulary_without_the_marks_of_a_turn_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    from transformers import Qwen2Tokenizer

    pieces = train_tokenizer(TEXTS, text_pieces=300, audio_slots=0)
    tokenizer = Qwen2Tokenizer(vocab={t: i for t, i in pieces.get_vocab().items() if i < 300}, merges=[])
    tokenizer.add_tokens(["<|im_start|>", *(audio_slot(i) for i in range(4))], special_tokens=True)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text((checkpoint / "config.json").read_text())
    assert "<|im_end|>" not in AutoTokenizer.from_pretrained(tmp_path).get_vocab()
    with pytest.raises(RecipeError, match=r"lacks <\|im_end\|>, <\|audio_start\|>, which the prompt is made of; .+$"):
        load_adapter("codec_lm", tmp_path)
