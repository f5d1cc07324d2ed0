from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
import torchaudio.functional as AF

from rlhf_platform.data.audio import load_audio
from rlhf_platform.errors import DataError


def noise(frames: int, channels: int = 1) -> np.ndarray:
    """Samples that 16 bits hold exactly."""
    integers = np.random.default_rng(0).integers(-20_000, 20_000, (frames, channels), dtype=np.int16)
    return integers[:, 0] if channels == 1 else integers


@pytest.mark.parametrize("name", ["clip.flac", "clip.wav"])
def test_lossless_files_come_back_bit_exact(tmp_path: Path, name: str) -> None:
    samples = noise(16_000)
    sf.write(tmp_path / name, samples, 16_000)
    loaded = load_audio(tmp_path / name)
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, samples / 32768)
    np.testing.assert_array_equal(load_audio(str(tmp_path / name)), loaded)


def test_another_rate_is_resampled_as_torchaudio_does(tmp_path: Path) -> None:
    samples = noise(8_000)
    sf.write(tmp_path / "clip.flac", samples, 8_000)
    expected = AF.resample(torch.from_numpy((samples / 32768).astype(np.float32)), 8_000, 16_000).numpy()
    loaded = load_audio(tmp_path / "clip.flac")
    np.testing.assert_array_equal(loaded, expected)
    assert len(loaded) == 16_000


def test_stereo_is_averaged(tmp_path: Path) -> None:
    samples = noise(4_000, channels=2)
    sf.write(tmp_path / "clip.flac", samples, 16_000)
    np.testing.assert_array_equal(load_audio(tmp_path / "clip.flac"), samples.sum(axis=1) / 65536)


def test_a_wav_whose_writer_could_not_know_its_length_is_read(tmp_path: Path) -> None:
    path = tmp_path / "piped.wav"
    sf.write(path, noise(1_000), 16_000)
    content = bytearray(path.read_bytes())
    assert content[36:40] == b"data"
    content[4:8] = content[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert len(load_audio(path)) == 1_000


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.wav: no such audio file"):
        load_audio(tmp_path / "gone.wav")


def test_a_file_that_is_not_audio_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.wav").write_text("not audio at all, but long enough to look into")
    with pytest.raises(DataError, match=r"notes\.wav: not readable as audio"):
        load_audio(tmp_path / "notes.wav")


@pytest.mark.parametrize("name", ["clip.wav", "clip.flac"])
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str, kept: float) -> None:
    path = tmp_path / name
    sf.write(path, noise(16_000), 16_000)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(DataError, match=f"{name}: cut short"):
        load_audio(path)


def test_a_truncated_wav_says_what_was_promised_and_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    sf.write(path, noise(16_000), 16_000)
    path.write_bytes(path.read_bytes()[: 44 + 2 * 5_000])
    with pytest.raises(DataError, match="promises 16000 frames and 5000 can be read"):
        load_audio(path)


def test_a_file_without_samples_is_refused(tmp_path: Path) -> None:
    sf.write(tmp_path / "header.wav", noise(0), 16_000)
    (tmp_path / "nothing.wav").touch()
    for name in ("header.wav", "nothing.wav"):
        with pytest.raises(DataError, match=f"{name}: empty"):
            load_audio(tmp_path / name)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_numbers_are_refused(tmp_path: Path, bad: float) -> None:
    samples = np.zeros(1_000, np.float32)
    samples[[3, 500]] = bad
    sf.write(tmp_path / "clip.wav", samples, 16_000, subtype="FLOAT")
    with pytest.raises(DataError, match="2 of 1000 samples are NaN or infinite"):
        load_audio(tmp_path / "clip.wav")
