"""The embedded codec on recorded speech that it was not trained on, judged by other tools than it is made of."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import parselmouth
import pytest
import pyworld
import torch
import torchaudio

from policies.codec import world
from policies.codec.interface import Codec, CodecError
from policies.codec.load import load_codec
from policies.codec.world import load_net
from rlhf_platform.types import Waveform


@pytest.fixture(scope="module")
def codec() -> Codec:
    return load_codec("world")


def coded(codec: Codec, samples: Waveform) -> Waveform:
    return codec.speech_of(codec.tokens_of(samples))[: len(samples)]


def median_f0(samples: Waveform) -> float:
    """Hz, by Praat."""
    found = parselmouth.Sound(samples.astype(np.float64), 16_000).to_pitch(0.005, 75, 600).selected_array["frequency"]
    return float(np.median(found[found > 0]))


def with_pitch(samples: Waveform, factor: float) -> Waveform:
    """The same with its F0 times `factor`, by WORLD."""
    wave = samples.astype(np.float64)
    f0, times = pyworld.dio(wave, 16_000)
    power = pyworld.cheaptrick(wave, f0, times, 16_000)
    return pyworld.synthesize(factor * f0, power, pyworld.d4c(wave, f0, times, 16_000), 16_000).astype(np.float32)


def log_mel(samples: Waveform) -> np.ndarray:
    mel = torchaudio.transforms.MelSpectrogram(16_000, n_fft=512, hop_length=160, n_mels=40)
    return torch.log(mel(torch.from_numpy(samples)) + 1e-6).numpy()


def test_no_more_than_75_tokens_a_second(codec: Codec) -> None:
    assert codec.name == "world"
    assert codec.sample_rate == 16_000
    assert codec.frame_rate * len(codec.codebooks) <= 75
    assert max(codec.codebooks) <= 512
    assert sum(codec.codebooks) <= 1024


@pytest.mark.parametrize("length", [640, 641, 8001, 16_000])
def test_sound_is_padded_to_whole_frames(codec: Codec, held_out: list[Waveform], length: int) -> None:
    codes = codec.encode(held_out[0][:length])
    frames = -(-length // 640)
    assert codes.shape == (frames, len(codec.codebooks))
    assert codes.dtype == np.int64
    sound = codec.decode(codes)
    assert sound.shape == (640 * frames,)
    assert sound.dtype == np.float32
    np.testing.assert_array_equal(codec.encode(np.pad(held_out[0][:length], (0, 640 * frames - length))), codes)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(639, np.float32), "639 samples are shorter than a frame, which is 640"),
        (np.full(2000, np.nan, np.float32), "NaN"),
        (np.zeros((2, 2000), np.float32), r"shape \(2, 2000\)"),
    ],
)
def test_what_is_no_speech_is_refused(codec: Codec, samples: Waveform, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        codec.encode(samples)


def test_codes_of_another_codec_are_refused(codec: Codec) -> None:
    with pytest.raises(CodecError, match="expected"):
        codec.decode(np.zeros((4, 7), np.int64))
    with pytest.raises(CodecError, match="frame 1 has entry 256 of codebook 2"):
        codec.decode(np.array([[0, 0, 0], [0, 0, 256]]))


def test_sound_is_that_of_the_speech_and_not_of_another(codec: Codec, held_out: list[Waveform]) -> None:
    """Log-mel spectra of all pairs: each decoded clip is nearest to its own original, by far."""
    length = min(len(clip) for clip in held_out)
    before = [log_mel(clip[:length]) for clip in held_out]
    after = [log_mel(coded(codec, clip)[:length]) for clip in held_out]
    distance = np.array([[np.abs(a - b).mean() for b in before] for a in after])
    own = distance.diagonal()
    others = distance[~np.eye(len(before), dtype=bool)].reshape(len(before), -1).min(1)
    assert (own < 0.5 * others).all(), distance.round(2)


@pytest.mark.parametrize("factor", [0.75, 1.0, 1.35])
def test_pitch_survives(codec: Codec, held_out: list[Waveform], factor: float) -> None:
    for clip in held_out[:2]:
        given = with_pitch(clip, factor)
        assert abs(12 * np.log2(median_f0(coded(codec, given)) / median_f0(given))) < 0.7


@pytest.mark.parametrize("decibels", [-12, -6, 6])
def test_loudness_survives(codec: Codec, held_out: list[Waveform], decibels: float) -> None:
    clip = 0.4 * held_out[0] / np.abs(held_out[0]).max()
    plain, changed = coded(codec, clip), coded(codec, np.float32(10 ** (decibels / 20)) * clip)
    found = 10 * np.log10(np.square(changed).mean() / np.square(plain).mean())
    assert found == pytest.approx(decibels, abs=2)


def test_silence_stays_silent(codec: Codec, held_out: list[Waveform]) -> None:
    assert np.abs(coded(codec, np.zeros(16_000, np.float32))).max() < 1e-3
    gap = np.concatenate([held_out[0], np.zeros(8000, np.float32), held_out[1]])
    start = len(held_out[0])
    assert np.abs(coded(codec, gap)[start + 1600 : start + 6400]).max() < 2e-3


def test_any_codes_make_finite_sound(codec: Codec) -> None:
    """A policy writes what it likes."""
    codes = np.random.default_rng(0).integers(0, codec.codebooks, (100, len(codec.codebooks)))
    sound = codec.decode(codes)
    assert np.isfinite(sound).all()
    assert np.abs(sound).max() <= 1


def test_the_same_bits_in_another_process(codec: Codec, held_out: list[Waveform], tmp_path: Path) -> None:
    codes = codec.encode(held_out[0])
    np.save(tmp_path / "codes.npy", codes)
    script = (
        "import sys, numpy, torch; torch.set_num_threads(1); from policies.codec.load import load_codec;"
        "numpy.save(sys.argv[2], load_codec('world').decode(numpy.load(sys.argv[1])))"
    )
    for name in ("first.npy", "second.npy"):
        files = [str(tmp_path / "codes.npy"), str(tmp_path / name)]
        subprocess.run([sys.executable, "-c", script, *files], check=True, cwd=Path(__file__).parents[3])
    first, second = (np.load(tmp_path / name) for name in ("first.npy", "second.npy"))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(codec.decode(codes), codec.decode(codes))
    # What other libraries have set in this process (denormals, threads) may round otherwise.
    np.testing.assert_allclose(first, codec.decode(codes), atol=1e-3)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    changed = bytearray(world.WEIGHTS.read_bytes())
    changed[-1] ^= 1
    (tmp_path / "world.safetensors").write_bytes(changed)
    with pytest.raises(CodecError, match=r"its SHA-256 is \w+, expected"):
        load_net(tmp_path / "world.safetensors")
    with pytest.raises(CodecError, match="no such file"):
        load_net(tmp_path / "missing.safetensors")
    assert world.WEIGHTS.stat().st_size < 2_000_000


def test_coarse_codebooks_alone_are_the_first_codes_and_still_speech(codec: Codec, held_out: list[Waveform]) -> None:
    coarse = load_codec("world", codebooks=2)
    codes = codec.encode(held_out[0])
    assert coarse.codebooks == codec.codebooks[:2]
    np.testing.assert_array_equal(coarse.encode(held_out[0]), codes[:, :2])
    sound = coarse.decode(codes[:, :2])
    assert len(sound) == len(codec.decode(codes))
    frames = log_mel(held_out[0]).shape[1]
    assert np.abs(log_mel(sound)[:, :frames] - log_mel(held_out[0])).mean() < 1.5
