"""Synthetic voices that speak the demo set: espeak-ng (formants, many voices) and hibari (neural, one voice).

Both come as Python packages with everything inside: no system package, no download at run time.
"""

import _ctypes  # only its `dlclose`, which ctypes itself does not offer
import ctypes
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rlhf_platform.data.audio import resample
from rlhf_platform.errors import DataError
from rlhf_platform.types import Waveform

_RETRIEVE_SYNCHRONOUSLY = 2  # espeak_AUDIO_OUTPUT
_UTF8 = 1
_RATE, _PITCH, _RANGE = 1, 3, 4  # espeak_PARAMETER
_ON_SAMPLES = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


@dataclass(frozen=True)
class Voice:
    """One synthetic speaker."""

    engine: str
    """`espeak` or `hibari`."""
    name: str = ""
    """espeak voice, accent and variant (`en-us+f3`); unused for hibari."""
    rate: float = 160
    """Words per minute, 80 to 450 (espeak), or a speed factor about 1 (hibari)."""
    pitch: int = 50
    """0 to 99; espeak only."""
    pitch_range: int = 50
    """0 to 99, 0 is monotone; espeak only."""


def speak(voice: Voice, text: str, sample_rate: int, seed: int = 0) -> Waveform:
    """`text` in the given voice: float32 samples (n,) in [-1, 1] at `sample_rate` Hz.

    The same arguments give the same bits, whatever was spoken before. `seed` varies the noise in the voice
    and, for hibari, the delivery. Raises `DataError` for an engine that is not installed, `ValueError` for an
    unknown voice.
    """
    engines = {"espeak": _speak_espeak, "hibari": _speak_hibari}
    if voice.engine not in engines:
        raise ValueError(f"unknown voice engine {voice.engine!r}: {' or '.join(engines)}")
    samples, native_rate = engines[voice.engine](voice, text, seed)
    return np.clip(resample(samples, native_rate, sample_rate), -1, 1)


def _speak_espeak(voice: Voice, text: str, seed: int) -> tuple[Waveform, int]:
    """A fresh copy of the library for each utterance, at 0.3 ms.

    espeak-ng carries flutter, glottal phase and noise over from one utterance to the next, and its own
    terminate and initialise do not reset them.
    """
    loader = _import("espeakng_loader")
    library = ctypes.CDLL(loader.get_library_path())
    chunks: list[npt.NDArray[np.int16]] = []

    def collect(samples: Any, count: int, _events: Any) -> int:
        if samples and count > 0:
            chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    on_samples = _ON_SAMPLES(collect)  # a name of its own, or it is freed while the library holds it
    try:
        sample_rate = library.espeak_Initialize(_RETRIEVE_SYNCHRONOUSLY, 0, loader.get_data_path().encode(), 0)
        if sample_rate <= 0:
            raise DataError("espeak-ng did not start: its data folder is unreadable; install espeakng-loader anew")
        library.espeak_ng_SetRandSeed(ctypes.c_long(seed))  # else the clock seeds it
        library.espeak_SetSynthCallback(on_samples)
        variant = voice.name.partition("+")[2]  # espeak-ng passes over a variant that it does not know
        known = not variant or Path(loader.get_data_path(), "voices", "!v", variant).is_file()
        if library.espeak_SetVoiceByName(voice.name.encode()) != 0 or not known:
            raise ValueError(f"espeak-ng has no voice {voice.name!r}")
        for parameter, value in (
            (_RATE, round(voice.rate)),
            (_PITCH, voice.pitch),
            (_RANGE, voice.pitch_range),
        ):
            library.espeak_SetParameter(parameter, value, 0)
        data = text.encode() + b"\0"
        library.espeak_Synth(data, len(data), 0, 1, 0, _UTF8, None, None)
        library.espeak_Synchronize()
    finally:
        library.espeak_Terminate()
        _ctypes.dlclose(library._handle)
    samples: Waveform = np.concatenate(chunks).astype(np.float32) / np.float32(32768)
    return samples, sample_rate


def _speak_hibari(voice: Voice, text: str, seed: int) -> tuple[Waveform, int]:
    engine = _hibari()
    samples: Waveform = np.asarray(engine(text, speed=voice.rate, seed=seed), dtype=np.float32)
    return samples, engine.sample_rate


@cache
def _hibari() -> Any:
    return _import("hibari").Hibari(threads=1)  # one thread: the sums come out in one order, hence the same bits


def _import(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise DataError(
            f"the demo's voices need the package {module!r}; install rlhf-platform with its extra `voice`"
        ) from None
