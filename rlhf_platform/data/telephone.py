"""What a telephone line makes of speech: a narrow band, noise, eight bits a sample.

All is computed in float64 and stored in 16 bits, so that hardly a bit depends on the kind of processor.
"""

import math

import torch
import torchaudio.functional as AF

from rlhf_platform.data.audio import SAMPLE_RATE
from rlhf_platform.types import Waveform

LINE_RATE = 8_000
"""Hz; samples on the line."""

BAND = (300.0, 3_400.0)
"""Hz; what passes the line, half as loud at either edge."""

_TAPS = 257  # of the filter at LINE_RATE: the edges are about 100 Hz wide
_FRAME = 160  # samples at LINE_RATE, 20 ms
_ACTIVE_DB = 30.0  # how far below the loudest frame a frame still counts as speech
_LOUDEST = 0.8  # amplitude on the line; what is louder is turned down as a whole, since resampling adds to peaks
_LEVELS = 256


def telephone(speech: Waveform, snr_db: float, seed: int) -> Waveform:
    """Speech (n,) at 16 kHz as the other end hears it, (n,) at 16 kHz too.

    Pink noise is added `snr_db` decibels below the speech, both as they are in the line's band and where
    there is speech; `seed` draws it. The sum passes through mu-law companding (mu = 255, 256 levels), as in
    ITU-T G.711. Nothing but the images of the resampling is above 4 kHz.
    """
    narrow = to_line(speech)
    noise = _band_pass(_pink(len(narrow), seed))
    mixed = add_noise(narrow, noise, snr_db)
    mixed = mixed * (_LOUDEST / mixed.abs().max().clamp(min=_LOUDEST))
    heard = AF.mu_law_decoding(AF.mu_law_encoding(mixed, _LEVELS), _LEVELS).double()
    wide: Waveform = AF.resample(heard, LINE_RATE, SAMPLE_RATE)[: len(speech)].float().numpy()
    return wide


def to_line(speech: Waveform) -> torch.Tensor:
    """Speech (n,) at 16 kHz in the line's band: (n / 2,), rounded up, float64 at 8 kHz."""
    return _band_pass(AF.resample(torch.from_numpy(speech).double(), SAMPLE_RATE, LINE_RATE))


def add_noise(speech: torch.Tensor, noise: torch.Tensor, snr_db: float) -> torch.Tensor:
    """(n,) and (n,) at 8 kHz to (n,): speech plus noise of `snr_db` decibels less power where there is speech."""
    active = _active(speech)
    ratio = speech[active].square().mean() / noise[active].square().mean()
    return speech + noise * (ratio * 10 ** (-snr_db / 10)).sqrt()


def _active(speech: torch.Tensor) -> torch.Tensor:
    """(n,) of truth values: in a frame of 20 ms that is at most 30 dB below the loudest."""
    frames = torch.nn.functional.pad(speech, (0, -len(speech) % _FRAME)).view(-1, _FRAME)
    power = frames.square().mean(dim=1)
    return (power >= power.max() * 10 ** (-_ACTIVE_DB / 10)).repeat_interleave(_FRAME)[: len(speech)]


def _pink(samples: int, seed: int) -> torch.Tensor:
    """(samples,) of Gaussian noise whose power falls by 3 dB an octave."""
    length = _fast(samples)
    white = torch.randn(length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    spectrum = torch.fft.rfft(white)
    bins = torch.arange(len(spectrum), dtype=torch.float64).clamp(min=1)
    return torch.fft.irfft(spectrum / bins.sqrt(), n=length)[:samples]


def _band_pass(samples: torch.Tensor) -> torch.Tensor:
    """(n,) at 8 kHz to (n,): without delay, since the filter is symmetric."""
    low, high = (2 * edge / LINE_RATE for edge in BAND)
    steps = torch.arange(_TAPS, dtype=torch.float64) - _TAPS // 2
    ideal = high * torch.sinc(high * steps) - low * torch.sinc(low * steps)
    window = 0.54 + 0.46 * torch.cos(2 * math.pi * steps / (_TAPS - 1))  # Hamming
    length = _fast(len(samples) + _TAPS)  # of zeros behind, so that the end does not run into the start
    spectrum = torch.fft.rfft(samples, n=length) * torch.fft.rfft(ideal * window, n=length)
    return torch.fft.irfft(spectrum, n=length)[_TAPS // 2 :][: len(samples)]


def _fast(length: int) -> int:
    """A power of two from `length` on: other lengths take many times longer to transform."""
    return 1 << (length - 1).bit_length()
