"""The backbone built from nothing."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from policies.qwen3_asr import Qwen3ASRAdapter
from policies.tiny import build_tiny
from rlhf_platform.recipe.backbone import TinyBackbone
from tests.tiny import SPEC, TEXTS, WINDOW


def build(spec: TinyBackbone, path: Path, window: float = WINDOW) -> dict[str, torch.Tensor]:
    build_tiny(spec, TEXTS, window, path)
    return dict(Qwen3ASRAdapter(path).load_model(torch.float32).named_parameters())


def test_the_seed_alone_decides_the_weights(tmp_path: Path) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = build(SPEC, tmp_path / "one")
    assert torch.equal(torch.get_rng_state(), before)  # and the caller's generator is left alone
    torch.manual_seed(2)
    same, other = build(SPEC, tmp_path / "same"), build(replace(SPEC, seed=1), tmp_path / "other")
    assert one.keys() == same.keys() == other.keys()
    for name, parameter in one.items():
        assert torch.equal(parameter, same[name]), name
        if parameter.dim() > 1:
            assert not torch.equal(parameter, other[name]), name


def test_the_head_is_untied(tmp_path: Path) -> None:
    build_tiny(SPEC, TEXTS, WINDOW, tmp_path)
    model = Qwen3ASRAdapter(tmp_path).load_model(torch.float32)
    head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    assert head.data_ptr() != embedding.data_ptr()
    assert head.shape == embedding.shape
    assert not torch.equal(head, embedding)


def test_sizes_are_those_asked_for(tmp_path: Path) -> None:
    build_tiny(SPEC, TEXTS, WINDOW, tmp_path)
    adapter = Qwen3ASRAdapter(tmp_path)
    model = adapter.load_model(torch.float32)
    text, audio = model.config.text_config, model.config.audio_config
    assert (text.hidden_size, text.num_hidden_layers, text.num_attention_heads) == (64, 2, 2)
    assert (text.num_key_value_heads, text.max_position_embeddings) == (1, 512)
    assert (audio.d_model, audio.encoder_layers, audio.encoder_attention_heads) == (64, 1, 2)
    assert audio.downsample_hidden_size == 8
    assert len(adapter.tokenizer) == text.vocab_size == len(model.get_output_embeddings().weight)
    assert set(model.generation_config.eos_token_id) == set(adapter.end_token_ids)


def test_the_default_has_between_one_and_three_million_parameters(tmp_path: Path) -> None:
    weights = build(TinyBackbone(), tmp_path)
    assert 1_000_000 < sum(parameter.numel() for parameter in weights.values()) < 3_000_000


@pytest.mark.parametrize("window", [0.5, 4.0, 4.2])
def test_the_served_window_holds_the_longest_clip(tmp_path: Path, window: float) -> None:
    build(SPEC, tmp_path, window)
    assert window <= Qwen3ASRAdapter(tmp_path).processor.feature_extractor.chunk_length < window + 1


def test_fresh_weights_carry_the_signal(tmp_path: Path) -> None:
    """Logits of a fresh model differ between two sounds: nothing in between has shrunk the signal away."""
    build_tiny(SPEC, TEXTS, WINDOW, tmp_path)
    adapter = Qwen3ASRAdapter(tmp_path)
    model = adapter.load_model(torch.float32)
    generator = torch.Generator().manual_seed(0)
    sounds = torch.randn(2, 128, 100, generator=generator)
    with torch.no_grad():
        states = adapter.audio_states(model, sounds, torch.ones(2, 100, dtype=torch.long))
    assert (states[0] - states[1]).square().mean().sqrt() > 0.1 * states[0].square().mean().sqrt()
