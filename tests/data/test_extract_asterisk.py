from pathlib import Path

import av
import numpy as np
import pytest
import soundfile as sf

from rlhf_platform.data.digits import VOCABULARY
from rlhf_platform.data.extract_asterisk import SOURCES, extract
from rlhf_platform.errors import DataError


def encode_g722(path: Path, samples: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="g722") as container:
        stream = container.add_stream("g722", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = 16_000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


def test_an_unpacked_package_becomes_one_flac_per_word(tmp_path: Path) -> None:
    tone = (8_000 * np.sin(2 * np.pi * 440 * np.arange(8_000) / 16_000)).astype(np.int16)
    voice = tmp_path / "unpacked" / "usr" / "share" / "asterisk" / "sounds" / "en_US_f_Allison"
    for source in SOURCES.values():
        encode_g722(voice / source, tone)
    assert extract(tmp_path / "unpacked", tmp_path / "out") == 10
    assert {path.stem for path in (tmp_path / "out").iterdir()} == set(VOCABULARY)
    decoded, rate = sf.read(tmp_path / "out" / "nine.flac", dtype="int16")
    assert (rate, len(decoded)) == (16_000, 8_000)
    spectrum = np.abs(np.fft.rfft(decoded))
    assert np.argmax(spectrum) == 220  # 440 Hz in bins of 2 Hz: the samples, not noise, came through


def test_a_folder_without_the_recordings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no digits/0\.g722 \(10 recordings missing\)"):
        extract(tmp_path, tmp_path / "out")
