"""Insertions, loops and text on silence, counted by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st

from rewards.asr.hallucination import hallucination_penalty, insertion_rates, peak_level, repetition, silence_penalty
from rewards.types import RewardInput
from rlhf_platform.errors import DataError


def sample(reference: str, text: str, language: str = "en", audio: str = "", **metadata: Any) -> RewardInput:
    return RewardInput("p", text, reference=reference, language=language, audio=audio, metadata=metadata)


def clip(folder: Path, peak: float) -> str:
    """Half a second of a tone whose largest sample is `peak`."""
    tone = peak * np.sin(np.arange(8_000) * np.pi / 2)
    sf.write(folder / f"{peak}.wav", tone.astype(np.float32), 16_000, subtype="FLOAT")
    return str(folder / f"{peak}.wav")


@pytest.mark.parametrize(
    ("reference", "text", "share", "longest"),
    [
        ("alpha bravo", "alpha bravo", 0.0, 0.0),
        ("alpha bravo", "alpha x y bravo", 0.5, 0.5),
        ("alpha bravo", "w alpha x y bravo", 3 / 5, 2 / 5),
        ("alpha bravo", "x y", 0.0, 0.0),
        ("", "x y", 1.0, 1.0),
        ("alpha", "", 0.0, 0.0),
    ],
)
def test_insertions_by_hand(reference: str, text: str, share: float, longest: float) -> None:
    assert insertion_rates(sample(reference, text)) == pytest.approx({"share": share, "longest": longest})


@pytest.mark.parametrize(
    ("reference", "text", "expected"),
    [
        ("so it goes", "so it goes", 0.0),
        ("so it goes", "so so it goes", 0.0),
        ("so it goes", "so so so it goes", 3 / 5),
        ("so it goes", "so it so it so it goes", 6 / 7),
        ("so it goes", "it goes so it goes so it goes so", 1.0),
        ("no no no no", "no no no no", 0.0),
        ("no no", "no no no no", 2 / 4),
        ("a a b a a b a a b", "a a b a a b a a b", 0.0),
        ("never", "", 0.0),
        ("ha ha ha", "no no no", 1.0),
    ],
)
def test_loops_by_hand(reference: str, text: str, expected: float) -> None:
    assert repetition(sample(reference, text)) == pytest.approx(expected)


def test_a_loop_is_as_long_and_as_often_as_asked() -> None:
    one = sample("x", "a b c a b c")
    assert repetition(one) == 0.0
    assert repetition(one, min_repeats=2) == 1.0
    assert repetition(one, min_repeats=2, max_period=2) == 0.0
    assert repetition(sample("好", "好好好好", "zh")) == 1.0
    for wrong in ({"max_period": 0}, {"min_repeats": 1}):
        with pytest.raises(ValueError, match="at least 1 and 2 are needed"):
            repetition(one, **wrong)


@given(st.text("ab ", max_size=30))
def test_what_the_reference_says_is_no_loop(text: str) -> None:
    assert repetition(sample(text, text)) == 0.0
    assert hallucination_penalty(sample(text, text)) == 0.0


def test_words_are_invented_where_there_is_no_speech(tmp_path: Path) -> None:
    silent, loud = clip(tmp_path, 0.0005), clip(tmp_path, 0.01)
    assert silence_penalty(sample("", "thank you")) == -1.0
    assert silence_penalty(sample("", " ...")) == 0.0
    assert silence_penalty(sample("thank you", "thank you", speech=False)) == -1.0
    assert silence_penalty(sample("thank you", "thank you", speech=True)) == 0.0
    assert silence_penalty(sample("thank you", "thank you", audio=silent)) == -1.0
    assert silence_penalty(sample("thank you", "thank you", audio=loud)) == 0.0
    assert silence_penalty(sample("thank you", "", audio=silent)) == 0.0
    assert silence_penalty(sample("thank you", "thank you", audio=silent), below=None) == 0.0
    assert silence_penalty(sample("thank you", "thank you", audio=loud), below=-30.0) == -1.0


def test_levels_are_peaks_in_dbfs_and_read_once(tmp_path: Path) -> None:
    assert peak_level(clip(tmp_path, 1.0)) == pytest.approx(0.0, abs=1e-6)
    assert peak_level(clip(tmp_path, 0.1)) == pytest.approx(-20.0, abs=1e-6)
    assert peak_level(clip(tmp_path, 0.0)) == float("-inf")
    Path(tmp_path, "0.1.wav").unlink()
    assert peak_level(str(tmp_path / "0.1.wav")) == pytest.approx(-20.0, abs=1e-6)
    with pytest.raises(DataError, match="no such audio file"):
        silence_penalty(sample("a", "a", audio=str(tmp_path / "gone.wav")))


def test_the_penalty_of_funaudio() -> None:
    said = "please hold the line"
    assert hallucination_penalty(sample(said, said)) == 0.0
    assert hallucination_penalty(sample(said, "please fold the wine")) == 0.0
    assert hallucination_penalty(sample(said, said + " the line the line")) == -1.0
    assert hallucination_penalty(sample(said, said + " and thank you for")) == 0.0
    assert hallucination_penalty(sample(said, said + " and thank you for watching")) == -1.0
    assert hallucination_penalty(sample(said, said + " and thank you for"), max_run=3) == -1.0
    assert hallucination_penalty(sample("", "thank you")) == -1.0
    with pytest.raises(ValueError, match="max_run -1"):
        hallucination_penalty(sample(said, said), max_run=-1)
