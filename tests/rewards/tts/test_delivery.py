"""How it is said: pace, pauses, melody and instruction, by hand on speech that was changed in known ways."""

import json
from dataclasses import replace
from math import exp, log, log2
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from rewards.tts import (
    duration_band,
    f0_spread,
    instruction_match,
    instruction_match_praat,
    pause_match,
    teacher_distance,
)
from rewards.types import RewardInput
from rlhf_platform.data import prosody
from rlhf_platform.types import Waveform
from tests.rewards.scorers.speaking import SILENCE, TEXTS, another_voice, noisy, scrambled, spoken, with_pause

TEXT = TEXTS[1]


def recorded(samples: Waveform, folder: Path) -> RewardInput:
    """A sample that sounds as its recording."""
    path = folder / "reference.wav"
    sf.write(path, samples, 16_000, subtype="FLOAT")
    return RewardInput("p", "", reference=TEXT, audio=str(path), duration=len(samples) / 16_000, speech=samples)


def saying(sample: RewardInput, samples: Waveform) -> RewardInput:
    return replace(sample, speech=np.asarray(samples, np.float32))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> RewardInput:
    return recorded(spoken(TEXT), tmp_path_factory.mktemp("teacher"))


@pytest.mark.parametrize(
    ("seconds", "slack", "expected"),
    [(2.0, 0.0, 0.0), (2.5, 0.0, -0.25), (1.0, 0.0, -0.5), (9.0, 0.0, -1.0), (2.5, 0.1, -0.15), (2.1, 0.1, 0.0)],
)
def test_duration_band_by_hand(seconds: float, slack: float, expected: float) -> None:
    sample = RewardInput("p", "", duration=2.0, speech=np.zeros(round(seconds * 16_000), np.float32))
    assert duration_band(sample, slack=slack) == pytest.approx(expected, abs=1e-12)


def test_duration_band_needs_a_duration_and_a_slack_of_0_at_least(teacher: RewardInput) -> None:
    with pytest.raises(ValueError, match="prompt 'p' has no duration"):
        duration_band(replace(teacher, duration=0.0))
    with pytest.raises(ValueError, match=r"slack -0\.1: at least 0"):
        duration_band(teacher, slack=-0.1)


@pytest.mark.parametrize(
    ("own", "reference", "f1"),
    [
        ((), (), 1.0),
        ((0.5,), (), 0.0),
        ((), (0.5,), 0.0),
        ((0.5,), (0.5,), 1.0),
        ((0.5,), (0.42,), 1.0),
        ((0.2,), (0.7,), 0.0),
        ((0.2, 0.7), (0.7,), 2 / 3),
        ((0.2, 0.7), (0.2, 0.7), 1.0),
    ],
)
def test_pauses_match_by_their_places(
    own: tuple[float, ...], reference: tuple[float, ...], f1: float, tmp_path: Path
) -> None:
    def tone(pauses: tuple[float, ...]) -> Waveform:
        samples = (0.3 * np.sin(2 * np.pi * 200 * np.arange(32_000) / 16_000)).astype(np.float32)
        for at in sorted(pauses, reverse=True):
            place = round(at * 32_000)
            samples = np.concatenate([samples[:place], np.zeros(6_400, np.float32), samples[place:]])
        return samples

    found = pause_match(saying(recorded(tone(reference), tmp_path), tone(own)))
    assert found == pytest.approx({"f1": f1, "pauses": len(own)})


def test_a_pause_in_speech_is_found_at_any_pace(teacher: RewardInput, tmp_path: Path) -> None:
    paused = recorded(with_pause(spoken(TEXT), 0.5, 0.4), tmp_path)
    assert pause_match(paused) == {"f1": 1.0, "pauses": 1.0}
    faster = with_pause(spoken(TEXT, 1.2), 0.5, 0.25)
    assert pause_match(saying(paused, faster)) == {"f1": 1.0, "pauses": 1.0}
    assert pause_match(saying(paused, spoken(TEXT))) == {"f1": 0.0, "pauses": 0.0}


def test_f0_spread_is_that_of_the_measure_and_shrinks_with_the_voice(teacher: RewardInput) -> None:
    import pyworld

    samples = spoken(TEXT).astype(np.float64)
    f0, times = pyworld.harvest(samples, 16_000)
    spectrum, noise = pyworld.cheaptrick(samples, f0, times, 16_000), pyworld.d4c(samples, f0, times, 16_000)
    middle = np.exp(np.log(f0[f0 > 0]).mean())
    flat = pyworld.synthesize(np.where(f0 > 0, middle, 0.0), spectrum, noise, 16_000)
    spread = prosody.measure(spoken(TEXT), TEXT).f0_spread
    assert f0_spread(teacher) == pytest.approx({"semitones": spread, "ratio": 1.0}, abs=1e-6)
    assert f0_spread(saying(teacher, flat))["ratio"] < 0.3


def test_the_teachers_own_clip_has_no_distance(teacher: RewardInput) -> None:
    nothing = {"mcd": 0.0, "f0_semitones": 0.0, "stretch": 0.0, "energy_db": 0.0}
    assert teacher_distance(teacher) == pytest.approx(nothing | {"reward": 1.0}, abs=1e-5)


def test_half_the_level_is_6_db_and_nothing_else(teacher: RewardInput) -> None:
    found = teacher_distance(saying(teacher, spoken(TEXT) * 0.5))
    assert found["energy_db"] == pytest.approx(20 * log(2) / log(10), abs=1e-3)
    assert found["mcd"] == pytest.approx(0.0, abs=1e-3)
    assert found["reward"] == pytest.approx(exp(-found["energy_db"] / 12), abs=1e-3)


def test_distortion_is_that_of_librosas_cepstra_on_a_warp_found_by_hand(teacher: RewardInput) -> None:
    import librosa

    def cepstra(samples: Waveform) -> np.ndarray:
        power = librosa.feature.melspectrogram(y=samples, sr=16_000, n_fft=512, hop_length=160, n_mels=80)
        decibels = 10 * np.log10(np.maximum(power, power.max() * 1e-5))
        n = np.arange(80)
        basis = np.array([np.cos(np.pi * k * (n + 0.5) / 80) for k in range(1, 14)]) * np.sqrt(2) / 80
        return (basis @ decibels).T  # a cosine's amplitude over the square root of 2 is its RMS

    own, other = cepstra(spoken(TEXT, 1.2)), cepstra(spoken(TEXT))
    cost = np.linalg.norm(own[:, None] - other[None], axis=-1)
    total, steps = np.full((len(own) + 1, len(other) + 1), np.inf), np.zeros((len(own) + 1, len(other) + 1))
    total[0, 0] = 0
    for i, j in np.ndindex(cost.shape):
        least, before = min((total[at], at) for at in ((i, j), (i, j + 1), (i + 1, j)))
        total[i + 1, j + 1], steps[i + 1, j + 1] = cost[i, j] + least, steps[before] + 1
    found = teacher_distance(saying(teacher, spoken(TEXT, 1.2)))
    assert found["mcd"] == pytest.approx(total[-1, -1] / steps[-1, -1], abs=1e-4)
    assert found["stretch"] == pytest.approx(abs(log2(len(spoken(TEXT, 1.2)) / len(spoken(TEXT)))))


def test_a_higher_voice_is_off_by_the_semitones_that_it_is_higher(tmp_path: Path) -> None:
    def pulses(hertz: float) -> Waveform:
        time = np.arange(24_000) / 16_000
        return (0.05 * sum(np.cos(2 * np.pi * hertz * k * time) for k in range(1, 20))).astype(np.float32)

    found = teacher_distance(saying(recorded(pulses(150.0), tmp_path), pulses(150.0 * 2 ** (3 / 12))))
    assert found["f0_semitones"] == pytest.approx(3.0, abs=0.05)


def test_what_is_wrong_is_further_from_the_teacher(teacher: RewardInput) -> None:
    clean = spoken(TEXT)
    order = [spoken(TEXT, 1.15), noisy(clean, 10), scrambled(clean), another_voice(TEXT)]
    rewards = [teacher_distance(saying(teacher, each))["reward"] for each in order]
    assert rewards == sorted(rewards, reverse=True)
    assert teacher_distance(saying(teacher, spoken(TEXTS[0])))["reward"] < rewards[0] / 2


@pytest.mark.parametrize("reward", [pause_match, f0_spread, teacher_distance])
def test_they_need_sound_that_is_heard_and_a_recording(reward: object, teacher: RewardInput) -> None:
    with pytest.raises(ValueError, match="the sound of 'p' is silent"):
        reward(saying(teacher, SILENCE))
    with pytest.raises(ValueError, match="has no sound"):
        reward(replace(teacher, speech=None))
    with pytest.raises(ValueError, match="has no recording"):
        reward(replace(teacher, audio=""))


def asking(asked: dict[str, str], sample: RewardInput) -> RewardInput:
    """As the manifest has it, with norms in which the teacher is normal."""
    own = prosody.measure(spoken(TEXT), TEXT)
    norms = {"rate": own.rate, "f0": own.f0, "energy": own.energy}
    return replace(sample, metadata=json.loads(json.dumps({"asked": asked, "norms": norms})))


def test_each_asked_attribute_is_judged_by_itself(teacher: RewardInput) -> None:
    normal = asking({"rate": "normal", "pitch": "normal", "energy": "normal", "pause": "none"}, teacher)
    right = dict.fromkeys(("rate", "pitch", "energy", "pause"), 1.0)
    assert instruction_match(normal) == right | {"accuracy": 1.0, "graded": 1.0}
    softer = instruction_match(saying(normal, spoken(TEXT) * 0.5))
    # 6.02 dB below the norm, the bound of normal at 4 dB.
    assert softer == pytest.approx(
        right | {"energy": 0.0, "accuracy": 0.75, "graded": (3 + exp(-2.0206 / 4)) / 4}, abs=1e-3
    )
    paused = instruction_match(saying(normal, with_pause(spoken(TEXT), 0.5, 0.4)))
    assert (paused["pause"], paused["accuracy"]) == (0.0, 0.75)


def test_praats_measures_judge_alike_what_is_clear(teacher: RewardInput) -> None:
    normal = asking({"rate": "normal", "pitch": "normal", "energy": "normal", "pause": "none"}, teacher)
    assert instruction_match_praat(normal)["accuracy"] == 1.0
    changed = saying(normal, with_pause(spoken(TEXT) * 0.4, 0.5, 0.4))
    found = instruction_match_praat(changed)
    assert {name: found[name] for name in ("pitch", "energy", "pause")} == {"pitch": 1.0, "energy": 0.0, "pause": 0.0}


def test_what_was_asked_counts_and_not_what_is_normal(teacher: RewardInput) -> None:
    soft = asking({"energy": "soft"}, teacher)
    assert instruction_match(saying(soft, spoken(TEXT) * 0.5)) == {"energy": 1.0, "accuracy": 1.0, "graded": 1.0}
    # On the norm: 4 dB from the bound, which is 4 dB from the norm.
    assert instruction_match(soft) == pytest.approx({"energy": 0.0, "accuracy": 0.0, "graded": exp(-1)}, abs=1e-6)


def test_what_is_not_voiced_has_no_pitch_and_no_ending(teacher: RewardInput) -> None:
    whistle = 0.3 * np.sin(2 * np.pi * 3_000 * np.arange(16_000) / 16_000)
    asked = asking({"pitch": "normal", "ending": "level"}, teacher)
    assert instruction_match(saying(asked, whistle)) == {"pitch": 0.0, "ending": 0.0, "accuracy": 0.0, "graded": 0.0}


def test_silence_and_rows_that_ask_nothing_are_no_answer(teacher: RewardInput) -> None:
    with pytest.raises(ValueError, match="silent"):
        instruction_match(saying(asking({"rate": "slow"}, teacher), SILENCE))
    for asked in (None, {}, {"rate": "quick"}, {"speed": "slow"}):
        with pytest.raises(ValueError, match=r"metadata\.asked of 'p' is .*rate: slow, normal, fast"):
            instruction_match(replace(teacher, metadata={"asked": asked}))
    with pytest.raises(ValueError, match=r"metadata\.norms of 'p' is None"):
        instruction_match(replace(teacher, metadata={"asked": {"rate": "slow"}}))
