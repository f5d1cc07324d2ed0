"""Makes recipes/speech/digits/: one FLAC per word, from the Asterisk telephone system's prompts.

On Debian or Ubuntu, without root:

    apt-get download asterisk-core-sounds-en-g722
    dpkg-deb -x asterisk-core-sounds-en-g722_*.deb sounds
    python -m rlhf_platform.data.extract_asterisk sounds recipes/speech/digits

The recordings are stored whole; trimming is up to who uses them.
"""

import sys
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import soundfile as sf

from rlhf_platform.data.digits import VOCABULARY
from rlhf_platform.errors import DataError

SOURCES = {word: f"digits/{index}.g722" for index, word in enumerate(VOCABULARY)}
"""The recording of each word, below the voice's folder."""

_VOICE = "en_US_f_Allison"
_SAMPLE_RATE = 16_000  # Hz, of G.722


def extract(sounds_dir: Path, out_dir: Path) -> int:
    """Write `out_dir/WORD.flac` for every word; how many. Raises `DataError` if a recording is missing."""
    folders = [path for path in sounds_dir.rglob(_VOICE) if path.is_dir()]
    voice = folders[0] if folders else sounds_dir
    missing = [source for source in SOURCES.values() if not (voice / source).is_file()]
    if missing:
        raise DataError(
            f"{sounds_dir}: no {missing[0]} ({len(missing)} recordings missing);"
            " name the folder into which asterisk-core-sounds-en-g722 was unpacked"
        )
    out_dir.mkdir(parents=True, exist_ok=True)
    for word, source in SOURCES.items():
        sf.write(out_dir / f"{word}.flac", decode_g722(voice / source), _SAMPLE_RATE, subtype="PCM_16")
    return len(SOURCES)


def decode_g722(path: Path) -> npt.NDArray[np.int16]:
    """All samples (n,) at 16 kHz."""
    with av.open(str(path), format="g722") as container:
        frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    samples: npt.NDArray[np.int16] = np.concatenate(frames)
    return samples


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m rlhf_platform.data.extract_asterisk SOUNDS_DIR OUT_DIR")
    try:
        print(f"{extract(Path(sys.argv[1]), Path(sys.argv[2]))} words in {sys.argv[2]}")
    except DataError as error:
        sys.exit(str(error))
