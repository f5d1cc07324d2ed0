import re
from dataclasses import replace
from types import ModuleType

import numpy as np
import parselmouth
import pytest
from scipy.signal import butter, sosfilt

from rlhf_platform.data import prosody, prosody_praat
from rlhf_platform.data.prosody import SCALES, UNVOICED, Norms, Prosody, discretise, measure, norms_of, places
from rlhf_platform.types import Waveform
from tests.vowels import RATE, silence, vowel

BOTH = pytest.mark.parametrize("measurer", [prosody, prosody_praat], ids=["world", "praat"])
NORMS = Norms(rate=16.0, f0=200.0, energy=-26.0)
PLAIN = Prosody(rate=16.0, f0=200.0, f0_spread=2.0, ending=0.0, pauses=(), energy=-26.0, tilt=5.0)


def glide(semitones_per_second: float) -> Waveform:
    return vowel(200 * 2 ** (np.arange(RATE) / RATE * semitones_per_second / 12))


@BOTH
@pytest.mark.parametrize("f0", [90.0, 200.0, 320.0])
def test_a_pulse_train_has_its_own_f0_and_no_movement(measurer: ModuleType, f0: float) -> None:
    found = measurer.measure(vowel(f0), "ah")
    assert found.f0 == pytest.approx(f0, abs=0.2)
    assert found.f0_spread < 0.3
    assert abs(found.ending) < 2


@BOTH
@pytest.mark.parametrize("slope", [-12.0, 10.0])
def test_a_glide_has_its_slope_and_its_spread(measurer: ModuleType, slope: float) -> None:
    found = measurer.measure(glide(slope), "ah")
    assert found.ending == pytest.approx(slope, abs=0.3)
    assert found.f0_spread == pytest.approx(abs(slope) / np.sqrt(12), rel=0.05)  # of an even spread over one second
    assert found.f0 == pytest.approx(200 * 2 ** (slope / 24), rel=0.005)


@BOTH
@pytest.mark.parametrize("gain", [-6.0, 6.0])
def test_gain_is_energy_and_nothing_else(measurer: ModuleType, gain: float) -> None:
    plain = measurer.measure(vowel(200), "ah")
    changed = measurer.measure(vowel(200) * np.float32(10 ** (gain / 20)), "ah")
    assert changed.energy - plain.energy == pytest.approx(gain, abs=0.001)
    assert replace(changed, energy=plain.energy).f0 == pytest.approx(plain.f0, abs=0.01)
    assert (changed.rate, changed.pauses) == (plain.rate, plain.pauses)


@BOTH
def test_energy_is_the_rms_of_speech_in_dbfs_whatever_silence_is_around(measurer: ModuleType) -> None:
    samples = np.concatenate([silence(0.4), vowel(200, rms=0.05), silence(0.4)])
    assert measurer.measure(samples, "ah").energy == pytest.approx(20 * np.log10(0.05), abs=0.2)


@BOTH
def test_an_inserted_silence_is_found_and_taken_out_of_the_rate(measurer: ModuleType) -> None:
    half = vowel(200, 0.5)
    samples = np.concatenate([silence(0.05), half, silence(0.3), half, silence(0.05)])
    found = measurer.measure(samples, "open the red box")
    assert [edge for pause in found.pauses for edge in pause] == pytest.approx([0.55, 0.85], abs=0.02)
    assert found.rate == pytest.approx(16 / 1.0, rel=0.04)  # sixteen characters in one second of voice


@BOTH
def test_the_closure_of_a_plosive_is_no_pause(measurer: ModuleType) -> None:
    half = vowel(200, 0.5)
    assert measurer.measure(np.concatenate([half, silence(0.12), half]), "ah").pauses == ()


@BOTH
def test_tilt_is_the_energy_below_1_khz_over_that_above(measurer: ModuleType) -> None:
    time = np.arange(RATE) / RATE
    tones = 0.1 * np.sin(2 * np.pi * 300 * time) + 0.01 * np.sin(2 * np.pi * 2500 * time)
    assert measurer.measure(tones.astype(np.float32), "ah").tilt == pytest.approx(20, abs=0.2)


@BOTH
def test_a_darker_voice_has_a_higher_tilt(measurer: ModuleType) -> None:
    voice = vowel(200)
    dark = sosfilt(butter(2, 900, fs=RATE, output="sos"), voice).astype(np.float32)
    assert measurer.measure(dark, "ah").tilt > measurer.measure(voice, "ah").tilt + 3


@BOTH
def test_silence_and_a_click_are_not_measured(measurer: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"silent: the loudest tenth of a second is at -120 dBFS, below -50 dBFS"):
        measurer.measure(silence(1), "ah")
    click = silence(1)
    click[8000] = 0.1
    with pytest.raises(ValueError, match="silent"):
        measurer.measure(click, "ah")
    with pytest.raises(ValueError, match=r"too short: 0\.050 s"):
        measurer.measure(vowel(200, 0.05), "ah")
    with pytest.raises(ValueError, match="no letter or digit"):
        measurer.measure(vowel(200), "...")


@BOTH
def test_noise_is_unvoiced_and_of_no_class_that_is_asked_for(measurer: ModuleType) -> None:
    noise = np.random.default_rng(0).normal(0, 0.05, RATE).astype(np.float32)
    found = measurer.measure(noise, "ah")
    assert (found.f0, found.f0_spread, found.ending) == (0, 0, 0)
    assert discretise(found, NORMS)["pitch"] == discretise(found, NORMS)["ending"] == UNVOICED
    assert UNVOICED not in {name for scale in SCALES.values() for name in scale.classes}


def test_rate_counts_the_characters_that_are_scored() -> None:
    plain = measure(vowel(200), "open the red box").rate
    assert measure(vowel(200), "Open the red box!").rate == plain
    assert plain == pytest.approx(16, abs=0.1)


def test_praat_is_asked_as_its_documentation_says() -> None:
    samples = glide(8)
    pitch = parselmouth.Sound(samples.astype(np.float64), RATE).to_pitch_ac(pitch_floor=70, pitch_ceiling=500)
    hertz = pitch.selected_array["frequency"]
    assert prosody_praat.measure(samples, "ah").f0 == pytest.approx(2 ** np.median(np.log2(hertz[hertz > 0])), rel=1e-9)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, {}),
        ({"rate": 16 * 0.82}, {"rate": "slow"}),
        ({"rate": 16 * 0.84}, {}),
        ({"rate": 16 * 1.19}, {}),
        ({"rate": 16 * 1.21}, {"rate": "fast"}),
        ({"f0": 200 * 2 ** (2.6 / 12)}, {"pitch": "high"}),
        ({"f0": 200 * 2 ** (-2.4 / 12)}, {}),
        ({"f0": 200 * 2 ** (-2.6 / 12)}, {"pitch": "low"}),
        ({"energy": -21.9}, {"energy": "loud"}),
        ({"energy": -30.1}, {"energy": "soft"}),
        ({"pauses": ((0.3, 0.5),)}, {"pause": "one"}),
        ({"ending": 15.1}, {"ending": "rising"}),
        ({"ending": -15.1}, {"ending": "falling"}),
    ],
)
def test_classes_are_relative_to_the_speakers_norm(change: dict[str, float], expected: dict[str, str]) -> None:
    normal = {"rate": "normal", "pitch": "normal", "energy": "normal", "pause": "none", "ending": "level"}
    assert discretise(replace(PLAIN, **change), NORMS) == normal | expected


def test_places_are_in_the_units_of_the_bounds() -> None:
    far = Prosody(rate=32.0, f0=100.0, f0_spread=1, ending=5.0, pauses=((0.1, 0.3), (0.5, 0.9)), energy=-20.0, tilt=0)
    assert places(far, NORMS) == pytest.approx(
        {"rate": np.log(2), "pitch": -12.0, "energy": 6.0, "pause": 0.4, "ending": 5.0}
    )


def test_norms_are_medians_and_skip_the_unvoiced() -> None:
    clips = [replace(PLAIN, rate=rate, f0=f0, energy=-rate) for rate, f0 in ((10, 0.0), (14, 180.0), (30, 220.0))]
    assert norms_of(clips) == Norms(rate=14.0, f0=200.0, energy=-14.0)
    with pytest.raises(ValueError, match=re.escape("no clip is voiced")):
        norms_of(clips[:1])
