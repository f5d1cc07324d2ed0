"""Speech that the embedded codec was not trained on."""

from io import BytesIO

import numpy as np
import pytest

from rlhf_platform.data.prompts import decode_g722, read_archive, split_of
from rlhf_platform.types import Waveform


@pytest.fixture(scope="session")
def held_out() -> list[Waveform]:
    """Five recorded sentences of two to four seconds, 16 kHz."""
    found: list[Waveform] = []
    for recording in read_archive():
        if split_of(recording.text) == "heldout":
            samples = decode_g722(BytesIO(recording.g722)).astype(np.float32) / 32768
            if 32_000 <= len(samples) <= 64_000:
                found.append(samples)
    return found[:5]
