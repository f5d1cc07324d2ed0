"""WER against jiwer and by hand."""

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.asr import WordErrors, wer_reward, word_errors
from rewards.types import RewardInput

TEXTS = st.lists(st.sampled_from(["alpha", "bravo", "charlie", "nine"]), max_size=8).map(" ".join)


def score(reference: str, text: str, language: str = "en") -> float:
    return wer_reward(RewardInput("p", text, reference=reference, language=language))


def test_kinds_of_error_counted_by_hand() -> None:
    assert word_errors("alpha bravo charlie delta", "alpha bravo charlie delta", "en") == WordErrors(0, 0, 0, 4)
    assert word_errors("alpha bravo charlie delta", "alpha charlie", "en") == WordErrors(0, 2, 0, 4)
    assert word_errors("alpha bravo charlie", "alpha xray charlie nine nine", "en") == WordErrors(1, 0, 2, 3)
    assert word_errors("alpha", "", "en") == WordErrors(0, 1, 0, 1)


@given(TEXTS.filter(bool), TEXTS)
def test_wer_is_that_of_jiwer(reference: str, hypothesis: str) -> None:
    errors = word_errors(reference, hypothesis, "en")
    assert errors.wer == pytest.approx(jiwer.wer(reference, hypothesis), abs=1e-12)
    assert errors.reference_words == len(reference.split())
    assert score(reference, hypothesis) == pytest.approx(1 - min(jiwer.wer(reference, hypothesis), 1), abs=1e-12)


def test_reward_by_hand() -> None:
    assert score("alpha bravo charlie delta", "alpha bravo") == 0.5
    assert score("alpha", "xray nine nine nine") == 0.0
    assert score("Alpha, bravo!", "alpha BRAVO") == 1.0


def test_an_empty_reference_wants_an_empty_hypothesis() -> None:
    assert score("", "") == 1.0
    assert score("", "...") == 1.0
    assert score("", "alpha") == 0.0
    assert word_errors("", "alpha bravo", "en").wer == float("inf")


def test_languages_without_spaces_are_scored_by_character() -> None:
    assert word_errors("你好世界", "你好时界", "zh") == WordErrors(1, 0, 0, 4)
