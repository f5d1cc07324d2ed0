"""WORLD's parameters as rows: what pyworld says when asked directly."""

import numpy as np
import pyworld

from policies.codec.features import (
    APERIODICITY,
    CEPSTRA,
    DEFAULT_LOG_F0,
    FRAME,
    LOG_F0,
    SILENCE,
    VOICED,
    WIDTH,
    analyse,
    synthesise,
)
from rlhf_platform.types import Waveform


def test_rows_are_what_world_finds(held_out: list[Waveform]) -> None:
    wave = held_out[0].astype(np.float64)
    f0, times = pyworld.dio(wave, 16_000, f0_floor=71.0, f0_ceil=600.0, frame_period=5.0)
    f0 = pyworld.stonemask(wave, f0, times, 16_000)
    power = np.maximum(pyworld.cheaptrick(wave, f0, times, 16_000), SILENCE)
    features = analyse(held_out[0])
    rows = len(features)
    assert features.shape == (len(wave) // FRAME, WIDTH)
    np.testing.assert_array_equal(features[:, VOICED], (f0 > 0)[:rows])
    voiced = f0[:rows] > 0
    assert 0.3 < voiced.mean() < 1
    np.testing.assert_allclose(np.exp(features[voiced, LOG_F0]), f0[:rows][voiced], rtol=1e-5)
    expected = pyworld.code_spectral_envelope(power, 16_000, CEPSTRA)[:rows]
    np.testing.assert_allclose(features[:, :CEPSTRA], expected, rtol=1e-4, atol=1e-5)


def test_f0_between_voiced_rows_is_a_line(held_out: list[Waveform]) -> None:
    features = analyse(held_out[0])
    gap = np.flatnonzero(np.diff(features[:, VOICED]) < 0)[0]  # the last voiced row before the first gap
    end = gap + 1 + np.flatnonzero(features[gap + 1 :, VOICED])[0]
    expected = np.linspace(features[gap, LOG_F0], features[end, LOG_F0], end - gap + 1)
    np.testing.assert_allclose(features[gap : end + 1, LOG_F0], expected, rtol=1e-5)


def test_sound_is_what_world_makes_of_the_rows(held_out: list[Waveform]) -> None:
    features = analyse(held_out[1])
    columns = features.astype(np.float64)
    f0 = np.where(columns[:, VOICED] > 0, np.exp(columns[:, LOG_F0]), 0.0)
    power = pyworld.decode_spectral_envelope(np.ascontiguousarray(columns[:, :CEPSTRA]), 16_000, 1024)
    noise = pyworld.decode_aperiodicity(np.ascontiguousarray(columns[:, APERIODICITY:]), 16_000, 1024)
    expected = pyworld.synthesize(f0, power, noise, 16_000, 5.0)
    found = synthesise(features)
    assert len(found) == FRAME * len(features)
    np.testing.assert_allclose(found, expected[: len(found)].clip(-1, 1), atol=1e-6)


def test_silence_has_no_voice_and_stays_silent() -> None:
    features = analyse(np.zeros(8000, np.float32))
    np.testing.assert_allclose(features[:, 0], np.log(SILENCE), rtol=1e-6)
    assert not features[:, VOICED].any()
    np.testing.assert_allclose(features[:, LOG_F0], DEFAULT_LOG_F0, rtol=1e-6)
    assert np.abs(synthesise(features)).max() < 1e-3
