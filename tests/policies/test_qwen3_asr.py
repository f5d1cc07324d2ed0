"""The adapter against the library, the checkpoint on disk and vLLM's own reading of names."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen3ASRForConditionalGeneration
from transformers.models.qwen3_asr.processing_qwen3_asr import LANGUAGE_CODE_TO_NAME

from policies.load import load_adapter
from policies.qwen3_asr import Qwen3ASRAdapter
from policies.tokenizer import CONTROL_TOKENS, audio_slot
from rlhf_platform.errors import DataError
from rlhf_platform.types import Prompt
from tests.tiny import SPEC


def test_it_is_found_by_the_name_in_a_recipe(tiny_checkpoint: Path) -> None:
    assert isinstance(load_adapter("qwen3_asr", tiny_checkpoint), Qwen3ASRAdapter)


def test_a_clip_is_encoded_the_same_whatever_was_encoded_before(adapter: Qwen3ASRAdapter, clips: list[Prompt]) -> None:
    first = [adapter.encode(clip) for clip in clips]
    for clip, expected in reversed(list(zip(clips, first, strict=True))):
        again = adapter.encode(clip)
        assert again.token_ids == expected.token_ids
        assert torch.equal(again.clips[0].features, expected.clips[0].features)
        assert torch.equal(again.clips[0].mask, expected.clips[0].mask)


def test_the_prompt_has_one_placeholder_per_encoder_position(adapter: Qwen3ASRAdapter, clips: list[Prompt]) -> None:
    model = adapter.load_model(torch.float32)
    # 13 positions a second; less than a second is encoded as one (100 frames), 1.3 s has 4 more, 2.9 s 12 more.
    for clip, positions in zip(clips, (13, 13, 17, 38), strict=True):
        encoded = adapter.encode(clip)
        assert encoded.token_ids.count(adapter.processor.audio_token_id) == positions
        (heard,) = encoded.clips
        assert int(heard.mask.sum()) == round(max(clip.duration, 1.0) * 100)
        assert heard.features.shape[0] == 128
        with torch.no_grad():
            (states,) = adapter.audio_states(model, heard.features[None], heard.mask[None])
        assert states.shape == (positions, SPEC.hidden_size)


@pytest.mark.parametrize("language", ["en", "de", "zh"])
def test_the_prompt_reads_as_the_layout_says(adapter: Qwen3ASRAdapter, clips: list[Prompt], language: str) -> None:
    prompt = replace(clips[2], language=language)
    expected = (
        f"<|im_start|>user\n<|audio_start|>{'<|audio_pad|>' * 17}<|audio_end|><|im_end|>\n"
        f"<|im_start|>assistant\nlanguage {LANGUAGE_CODE_TO_NAME[language]}<asr_text>"
    )
    assert adapter.tokenizer.decode(list(adapter.encode(prompt).token_ids)) == expected


def test_an_unknown_language_is_refused_in_one_line(adapter: Qwen3ASRAdapter, clips: list[Prompt]) -> None:
    prompt = replace(clips[0], language="xx")
    for view in (adapter.encode, adapter.vllm_prompt):
        with pytest.raises(DataError, match=r"^prompt clip0: language is 'xx', this backbone knows ar, cs, .*, zh$"):
            view(prompt)


def test_the_policy_may_write_every_text_piece_and_the_end_token_and_nothing_else(adapter: Qwen3ASRAdapter) -> None:
    names = {*CONTROL_TOKENS, *(audio_slot(i) for i in range(SPEC.audio_slots))} - {"<|im_end|>"}
    forbidden = set(adapter.tokenizer.convert_tokens_to_ids(sorted(names)))
    assert len(forbidden) == len(names)
    assert set(adapter.completion_token_ids) == set(range(len(adapter.tokenizer))) - forbidden
    assert list(adapter.completion_token_ids) == sorted(set(adapter.completion_token_ids))
    assert adapter.end_token_ids == (adapter.tokenizer.convert_tokens_to_ids("<|im_end|>"),)


def test_a_target_is_the_transcript_and_the_end_and_may_be_written_in_full(adapter: Qwen3ASRAdapter) -> None:
    for text in ("alpha bravo", "", "naïve café", "a <|im_end|> b <asr_text> <|audio_3|>"):
        target = adapter.transcript_tokens(text)
        assert target[-1] in adapter.end_token_ids
        assert set(target) <= set(adapter.completion_token_ids)
        assert not set(target[:-1]) & set(adapter.end_token_ids)
        assert adapter.tokenizer.decode(list(target[:-1])) == text


def test_a_completion_is_read_without_its_end_token_and_outer_spaces(adapter: Qwen3ASRAdapter) -> None:
    assert adapter.completion_text(adapter.transcript_tokens("  alpha bravo \n")) == "alpha bravo"
    assert adapter.completion_text(adapter.transcript_tokens("alpha")[:-1]) == "alpha"
    assert adapter.completion_text(adapter.end_token_ids) == ""
    assert adapter.completion_text(()) == ""


def test_a_checkpoint_loads_in_transformers_with_every_weight(tiny_checkpoint: Path) -> None:
    model, report = Qwen3ASRForConditionalGeneration.from_pretrained(tiny_checkpoint, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert set(load_file(tiny_checkpoint / "model.safetensors")) == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        start = 0.0 if name.endswith("bias") else 1.0
        assert parameter.dim() > 1 or (parameter - start).abs().max() > 0.1, name


def test_a_saved_model_loads_as_it_was(adapter: Qwen3ASRAdapter, clips: list[Prompt], tmp_path: Path) -> None:
    model = adapter.load_model(torch.float32)
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
    adapter.save(model, tmp_path)
    loaded = Qwen3ASRAdapter(tmp_path)
    weights = dict(loaded.load_model(torch.float32).named_parameters())
    assert list(weights) == [name for name, _ in model.named_parameters()]
    for name, parameter in model.named_parameters():
        assert torch.equal(weights[name], parameter), name
    assert loaded.tokenizer.get_vocab() == adapter.tokenizer.get_vocab()
    assert loaded.completion_token_ids == adapter.completion_token_ids
    for clip in clips:
        assert loaded.encode(clip).token_ids == adapter.encode(clip).token_ids
        assert torch.equal(loaded.encode(clip).clips[0].features, adapter.encode(clip).clips[0].features)
    assert loaded.transcript_tokens("alpha <|im_end|>") == adapter.transcript_tokens("alpha <|im_end|>")


def test_only_the_encoder_counts_as_encoder(adapter: Qwen3ASRAdapter) -> None:
    model = adapter.load_model(torch.float32)
    encoder = {name for name, _ in model.named_parameters() if adapter.is_encoder(name)}
    tower = model.model.audio_tower
    assert len(encoder) == len(list(tower.parameters()))
    assert {id(p) for name, p in model.named_parameters() if name in encoder} == {id(p) for p in tower.parameters()}


def test_served_weights_are_all_there_and_detached(adapter: Qwen3ASRAdapter) -> None:
    model = adapter.load_model(torch.float32)
    sent = list(adapter.vllm_weights(model))
    assert len({name for name, _ in sent}) == len(sent) == len(list(model.parameters()))
    assert not any(tensor.requires_grad for _, tensor in sent)
    assert all(
        np.shares_memory(t.numpy(), p.detach().numpy()) for (_, t), p in zip(sent, model.parameters(), strict=True)
    )
