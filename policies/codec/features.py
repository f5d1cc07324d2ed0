"""Speech as WORLD's parameters (Morise et al. 2016, doi 10.1587/transinf.2015EDP7457), and back."""

import numpy as np
import numpy.typing as npt
import pyworld

from rlhf_platform.data.audio import SAMPLE_RATE
from rlhf_platform.types import Waveform

Features = npt.NDArray[np.float32]
"""(N, WIDTH), a row each 5 ms: coded log power spectrum (CEPSTRA), log F0 (Hz), voiced (0 or 1), aperiodicity (dB)."""

FRAME = 80
"""Samples per row."""
PERIOD = 1000 * FRAME / SAMPLE_RATE
CEPSTRA = 40
WIDTH = CEPSTRA + 3
LOG_F0, VOICED, APERIODICITY = CEPSTRA, CEPSTRA + 1, CEPSTRA + 2
LOWEST_F0, HIGHEST_F0 = 71.0, 600.0
FFT = 1024
SILENCE = 1e-8
"""Power below which all is alike: noise of -80 dB, which nobody hears."""
DEFAULT_LOG_F0 = float(np.log(190.0))
"""Where nothing is voiced."""


def analyse(samples: Waveform) -> Features:
    """Features of samples (n,) at 16 kHz: n // FRAME rows. The F0 of an unvoiced row is interpolated."""
    wave = samples.astype(np.float64)
    f0, times = pyworld.dio(wave, SAMPLE_RATE, f0_floor=LOWEST_F0, f0_ceil=HIGHEST_F0, frame_period=PERIOD)
    f0 = pyworld.stonemask(wave, f0, times, SAMPLE_RATE)
    power = np.maximum(pyworld.cheaptrick(wave, f0, times, SAMPLE_RATE, fft_size=FFT), SILENCE)
    noise = pyworld.d4c(wave, f0, times, SAMPLE_RATE, fft_size=FFT)
    columns = (
        pyworld.code_spectral_envelope(power, SAMPLE_RATE, CEPSTRA),
        _log_f0(f0),
        f0 > 0,
        pyworld.code_aperiodicity(noise, SAMPLE_RATE),
    )
    return np.column_stack(columns)[: len(samples) // FRAME].astype(np.float32)


def synthesise(features: Features) -> Waveform:
    """Samples (FRAME * N,) in [-1, 1] at 16 kHz of features (N, WIDTH)."""
    columns = features.astype(np.float64)
    cepstra, noise = (np.ascontiguousarray(columns[:, part]) for part in (slice(0, CEPSTRA), slice(APERIODICITY, None)))
    voiced = columns[:, VOICED] > 0.5
    f0 = np.where(voiced, np.exp(columns[:, LOG_F0]).clip(LOWEST_F0, HIGHEST_F0), 0.0)
    power = pyworld.decode_spectral_envelope(cepstra, SAMPLE_RATE, FFT)
    aperiodicity = pyworld.decode_aperiodicity(np.minimum(noise, 0), SAMPLE_RATE, FFT)
    wave = pyworld.synthesize(f0, power, aperiodicity, SAMPLE_RATE, PERIOD)
    samples = np.zeros(FRAME * len(features), np.float32)
    samples[: len(wave)] = wave[: len(samples)]
    return samples.clip(-1, 1)


def _log_f0(f0: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    (voiced,) = f0.nonzero()
    if not len(voiced):
        return np.full(len(f0), DEFAULT_LOG_F0)
    return np.interp(np.arange(len(f0)), voiced, np.log(f0[voiced]))
