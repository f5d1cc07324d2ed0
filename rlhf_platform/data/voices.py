"""Synthetic voices that speak the demo set: espeak-ng (formant synthesis, many voices) and hibari (neural, one voice).

Both come as Python packages with everything inside, so no system package and no download at run time is needed.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import espeakng_loader  # pyright: ignore
import numpy as np
import torch
import torchaudio.functional as AF

from rlhf_platform.types import Waveform

_RETRIEVE_SYNCHRONOUSLY = 2
_UTF8 = 1
_RATE, _PITCH, _RANGE = 1, 3, 4  # espeak_PARAMETER
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


@dataclass(frozen=True)
class Voice:
    """One synthetic speaker.

    `engine`: "espeak" or "hibari". `name`: espeak voice (`en-us+f3`: accent and variant), unused for hibari.
    `rate`: words per minute (espeak) or a speed factor (hibari). `pitch` and `pitch_range`: 0 to 99 (espeak only).
    """

    engine: str
    name: str = ""
    rate: float = 160
    pitch: int = 50
    pitch_range: int = 50


@cache
def _espeak() -> tuple[ctypes.CDLL, list[np.ndarray], Callable[..., int], int]:
    """The espeak-ng library, the list that its callback fills, the callback (kept alive) and its sample rate in Hz."""
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    chunks: list[np.ndarray] = []

    @_CALLBACK
    def collect(samples, count, _events):  # type: ignore[no-untyped-def]
        if samples and count > 0:
            chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    sample_rate = library.espeak_Initialize(
        _RETRIEVE_SYNCHRONOUSLY, 0, espeakng_loader.get_data_path().encode(), 0
    )
    if sample_rate <= 0:
        raise RuntimeError("espeak-ng did not start: its data directory is missing or unreadable")
    library.espeak_SetSynthCallback(collect)
    return library, chunks, collect, sample_rate


def _espeak_speak(voice: Voice, text: str) -> tuple[np.ndarray, int]:
    library, chunks, _, sample_rate = _espeak()
    chunks.clear()
    if library.espeak_SetVoiceByName(voice.name.encode()) != 0:
        raise ValueError(f"espeak-ng has no voice {voice.name!r}")
    for parameter, value in ((_RATE, int(voice.rate)), (_PITCH, voice.pitch), (_RANGE, voice.pitch_range)):
        library.espeak_SetParameter(parameter, value, 0)
    data = text.encode() + b"\0"
    library.espeak_Synth(data, len(data), 0, 1, 0, _UTF8, None, None)
    library.espeak_Synchronize()
    return np.concatenate(chunks).astype(np.float32) / 32768.0, sample_rate


@cache
def _hibari():  # type: ignore[no-untyped-def]
    from hibari import Hibari

    return Hibari()


def speak(voice: Voice, text: str, sample_rate: int, seed: int = 0) -> Waveform:
    """`text` in the given voice: float32 samples (n,) in [-1, 1] at `sample_rate` Hz, the same for the same seed."""
    if voice.engine == "espeak":
        samples, native = _espeak_speak(voice, text)
    elif voice.engine == "hibari":
        engine = _hibari()
        samples, native = engine(text, speed=voice.rate, seed=seed), engine.sample_rate
    else:
        raise ValueError(f"unknown voice engine {voice.engine!r}: espeak or hibari")
    audio = AF.resample(torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32)), native, sample_rate)
    return audio.clamp(-1, 1).numpy()
