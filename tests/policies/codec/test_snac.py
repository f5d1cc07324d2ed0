"""SNAC with small random weights: what the adapter gives is what the package gives when asked directly."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from snac import SNAC

from policies.codec.interface import CodecError
from policies.codec.load import load_codec
from policies.codec.snac import places

CONFIG = {
    "sampling_rate": 24_000,
    "encoder_dim": 16,
    "encoder_rates": [2, 4],
    "decoder_dim": 64,
    "decoder_rates": [4, 2],
    "attn_window_size": None,
    "codebook_size": 32,
    "codebook_dim": 4,
    "vq_strides": [4, 2, 1],
}
HOP = 2 * 4 * 4


def save(path: Path, **change: object) -> SNAC:
    torch.manual_seed(0)
    model = SNAC(**{**CONFIG, **change}).eval()
    (path / "config.json").write_text(json.dumps({**CONFIG, **change}))
    torch.save(model.state_dict(), path / "pytorch_model.bin")
    return model


def sound(samples: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.3, samples).clip(-1, 1).astype(np.float32)


def test_a_frame_is_laid_out_as_by_orpheus() -> None:
    assert places([4, 2, 1]) == [(0, 0), (1, 0), (2, 0), (2, 1), (1, 1), (2, 2), (2, 3)]
    assert len(places([8, 4, 2, 1])) == 15


def test_codes_are_those_of_the_model(tmp_path: Path) -> None:
    model = save(tmp_path)
    codec = load_codec("snac", str(tmp_path))
    x = sound(6 * HOP)
    with torch.inference_mode():
        a, b, c = (level[0].tolist() for level in model.encode(torch.from_numpy(x)[None, None]))
    expected = [
        [a[i], b[2 * i], c[4 * i], c[4 * i + 1], b[2 * i + 1], c[4 * i + 2], c[4 * i + 3]] for i in range(len(a))
    ]
    assert codec.encode(x).tolist() == expected
    assert codec.codebooks == (32,) * 7
    assert codec.frame_rate == 24_000 / HOP


def test_sound_is_that_of_the_model_and_the_same_each_time(tmp_path: Path) -> None:
    model = save(tmp_path)
    codec = load_codec("snac", str(tmp_path))
    codes = np.random.default_rng(1).integers(0, 32, (5, 7))
    levels = [codes[:, [0]], codes[:, [1, 4]], codes[:, [2, 3, 5, 6]]]
    torch.manual_seed(0)  # of the noise within
    with torch.inference_mode():
        expected = model.decode([torch.from_numpy(level).reshape(1, -1) for level in levels])
    state = torch.get_rng_state()
    found = codec.decode(codes)
    np.testing.assert_array_equal(found, expected.reshape(-1).numpy().clip(-1, 1))
    np.testing.assert_array_equal(found, codec.decode(codes))
    assert torch.equal(torch.get_rng_state(), state)  # the caller's draws are not disturbed
    assert len(found) == 5 * HOP
    assert found.std() > 0


def test_attention_in_windows_takes_any_number_of_frames(tmp_path: Path) -> None:
    model = save(tmp_path, attn_window_size=32)
    codec = load_codec("snac", str(tmp_path))
    x = sound(3 * HOP)
    codes = codec.encode(x)
    assert codes.shape == (3, 7)
    with torch.inference_mode():
        coarse = model.encode(torch.from_numpy(x)[None, None])[0][0]
    assert codes[:, 0].tolist() == coarse[:3].tolist()
    assert len(codec.decode(codes)) == 3 * HOP


def test_speech_at_16_khz_there_and_back(tmp_path: Path) -> None:
    save(tmp_path)
    codec = load_codec("snac", str(tmp_path))
    tokens = codec.tokens_of(sound(2001))
    assert len(tokens) == 7 * -(-2001 * 3 // (2 * HOP))
    assert abs(len(codec.speech_of(tokens)) - 2001) <= HOP
    with pytest.raises(CodecError, match="the last frame has 6 of 7"):
        codec.speech_of(tokens[:-1])
    with pytest.raises(CodecError, match="shorter than a frame"):
        codec.tokens_of(sound(8))


def test_a_checkpoint_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CodecError, match="no such file"):
        load_codec("snac", str(tmp_path))
