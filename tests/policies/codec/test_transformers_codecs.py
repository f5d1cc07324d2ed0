"""Mimi, DAC and EnCodec with small random weights: the adapter gives what the model gives when asked directly."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import DacConfig, DacModel, EncodecConfig, EncodecModel, MimiConfig, MimiModel

from policies.codec.interface import CodecError
from policies.codec.load import load_codec

MIMI = {
    "hidden_size": 32,
    "num_filters": 4,
    "upsampling_ratios": [5, 4],
    "codebook_size": 32,
    "codebook_dim": 8,
    "vector_quantization_hidden_dimension": 8,
    "num_quantizers": 4,
    "num_hidden_layers": 1,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "upsample_groups": 32,
    "sampling_rate": 24_000,
}
DAC = {
    "encoder_hidden_size": 4,
    "decoder_hidden_size": 32,
    "downsampling_ratios": [4, 8],
    "n_codebooks": 4,
    "codebook_size": 32,
    "codebook_dim": 4,
    "sampling_rate": 16_000,
}
ENCODEC = {
    "num_filters": 4,
    "hidden_size": 16,
    "upsampling_ratios": [5, 4],
    "codebook_size": 32,
    "num_lstm_layers": 1,
    "target_bandwidths": [12.0, 24.0],  # 1,200 frames a second of 5 bits: two codebooks, or four
    "sampling_rate": 24_000,
}
HOPS = {"mimi": 40, "dac": 32, "encodec": 20}
BUILD: dict[str, Any] = {
    "mimi": lambda: MimiModel(MimiConfig(**MIMI)),
    "dac": lambda: DacModel(DacConfig(**DAC)),
    "encodec": lambda: EncodecModel(EncodecConfig(**ENCODEC)),
}


@pytest.fixture(scope="module", params=["mimi", "dac", "encodec"])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, Any]:
    """Name, folder, and the model that was saved there."""
    torch.manual_seed(0)
    model = BUILD[request.param]().eval()
    for name, buffer in model.named_buffers():
        if name.endswith(("embed", "embed_sum")):  # zeros until they are trained
            buffer.normal_(std=0.02)  # as small as what random layers give
    path = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(path)
    return request.param, str(path), model


def sound(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.3, samples).clip(-1, 1).astype(np.float32)


def test_codes_are_those_of_the_model(saved: tuple[str, str, Any]) -> None:
    name, path, model = saved
    codec = load_codec(name, path)
    hop = HOPS[name]
    x = sound(10 * hop)
    with torch.inference_mode():
        given = torch.from_numpy(x)[None, None]
        answer = model.encode(given, bandwidth=24.0) if name == "encodec" else model.encode(given)
    expected = answer.audio_codes.reshape(4, -1).T.numpy()
    codes = codec.encode(x)
    np.testing.assert_array_equal(codes, expected)
    assert codes.shape == (10, 4)
    assert len({tuple(frame) for frame in codes}) > 1
    assert codec.codebooks == (32,) * 4
    assert codec.sample_rate == model.config.sampling_rate
    assert codec.frame_rate == pytest.approx(model.config.sampling_rate / hop)


def test_sound_is_that_of_the_model(saved: tuple[str, str, Any]) -> None:
    name, path, model = saved
    codec = load_codec(name, path)
    codes = np.random.default_rng(1).integers(0, 32, (12, 4))
    with torch.inference_mode():
        given = torch.from_numpy(codes).T[None]
        answer = model.decode(given[None], [None]) if name == "encodec" else model.decode(audio_codes=given)
    expected = answer.audio_values.reshape(-1).numpy().clip(-1, 1)
    found = codec.decode(codes)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found, codec.decode(codes))
    assert found.dtype == np.float32
    assert abs(len(found) - 12 * HOPS[name]) <= HOPS[name]
    assert found.std() > 0


def test_a_last_frame_that_is_not_whole_is_padded(saved: tuple[str, str, Any]) -> None:
    name, path, _ = saved
    codec, hop = load_codec(name, path), HOPS[name]
    x = sound(5 * hop + 1)
    np.testing.assert_array_equal(codec.encode(x), codec.encode(np.pad(x, (0, hop - 1))))
    assert len(codec.encode(x)) == 6


def test_fewer_codebooks_are_the_first_of_all(saved: tuple[str, str, Any]) -> None:
    name, path, _ = saved
    whole, coarse = load_codec(name, path), load_codec(name, path, codebooks=2)
    codes = coarse.encode(sound(320))
    np.testing.assert_array_equal(codes, whole.encode(sound(320))[:, :2])
    assert coarse.codebooks == (32, 32)
    assert len(coarse.decode(codes)) == len(whole.decode(whole.encode(sound(320))))
    with pytest.raises(CodecError, match="codebooks is 5"):
        load_codec(name, path, codebooks=5)


def test_speech_at_16_khz_there_and_back(saved: tuple[str, str, Any]) -> None:
    name, path, _ = saved
    codec = load_codec(name, path)
    tokens = codec.tokens_of(sound(4000))
    assert len(tokens) == 4 * -(-4000 * codec.sample_rate // (16_000 * HOPS[name]))
    assert [token // 32 for token in tokens] == [0, 1, 2, 3] * (len(tokens) // 4)
    assert abs(len(codec.speech_of(tokens)) - 4000) <= 2 * HOPS[name]
    with pytest.raises(CodecError, match="codec token 1 is"):
        codec.speech_of([tokens[0], tokens[0], *tokens[2:]])
    with pytest.raises(CodecError, match="shorter than a frame"):
        codec.tokens_of(sound(5))


def test_a_checkpoint_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CodecError, match=r"codec 'mimi': .* cannot be loaded"):
        load_codec("mimi", str(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"audio_channels": 2}, "has 2 channels"), ({"normalize": True}, "loudness"), ({"chunk_length_s": 1.0}, "chunks")],
)
def test_encodec_with_more_than_codes_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    EncodecModel(EncodecConfig(**(ENCODEC | change))).save_pretrained(tmp_path)
    with pytest.raises(CodecError, match=message):
        load_codec("encodec", str(tmp_path))
