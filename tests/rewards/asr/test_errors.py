"""Word and character errors against jiwer and by hand."""

import jiwer
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rewards.asr.errors import (
    WordErrors,
    aligned,
    cer_reward,
    error_rates,
    length_reward,
    sentence_reward,
    wer_reward,
    word_errors,
)
from rewards.types import RewardInput
from rlhf_platform.data.text import normalize

TEXT = st.text("aaabb'é你हि      ", max_size=24) | st.text(max_size=12)
"""Short words of few letters, so that many match, and any Unicode."""

LANGUAGE = st.sampled_from(["en", "en", "fr", "hi", "zh"])


def sample(reference: str, text: str, language: str = "en") -> RewardInput:
    return RewardInput("p", text, reference=reference, language=language)


def test_kinds_of_error_counted_by_hand() -> None:
    assert word_errors("alpha bravo charlie delta", "alpha bravo charlie delta", "en") == WordErrors(0, 0, 0, 4)
    assert word_errors("alpha bravo charlie delta", "alpha charlie", "en") == WordErrors(0, 2, 0, 4)
    assert word_errors("alpha bravo charlie", "alpha xray charlie nine nine", "en") == WordErrors(1, 0, 2, 3)
    assert word_errors("alpha", "", "en") == WordErrors(0, 1, 0, 1)
    assert word_errors("alpha bravo charlie", "alpha xray", "en").hits == 1


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(TEXT, TEXT, LANGUAGE), min_size=20, max_size=20))
def test_errors_of_ten_thousand_pairs_are_those_of_jiwer(pairs: list[tuple[str, str, str]]) -> None:
    for reference, hypothesis, language in pairs:
        texts = normalize(reference, language), normalize(hypothesis, language)
        errors, by_word = word_errors(reference, hypothesis, language), jiwer.process_words(*texts)
        assert (errors.hits, errors.substitutions, errors.deletions, errors.insertions) == (
            *(by_word.hits, by_word.substitutions),
            *(by_word.deletions, by_word.insertions),
        )
        rates = error_rates(sample(reference, hypothesis, language))
        if not texts[0]:
            continue  # jiwer has no rate for it
        by_character = by_word if language == "zh" else jiwer.process_characters(*texts)
        assert errors.wer == rates["wer"] == pytest.approx(by_word.wer, abs=1e-12)
        cer = by_word.wer if language == "zh" else by_character.cer
        assert rates["cer"] == pytest.approx(cer, abs=1e-12)
        one = sample(reference, hypothesis, language)
        assert wer_reward(one) == pytest.approx(1 - min(by_word.wer, 1), abs=1e-12)
        assert cer_reward(one) == pytest.approx(1 - min(cer, 1), abs=1e-12)
        assert sentence_reward(one) == (texts[0] == texts[1])


def test_rewards_by_hand() -> None:
    assert wer_reward(sample("alpha bravo charlie delta", "alpha bravo")) == 0.5
    assert wer_reward(sample("alpha", "xray nine nine nine")) == 0.0
    assert wer_reward(sample("Alpha, bravo!", "alpha BRAVO")) == 1.0
    assert cer_reward(sample("abc de", "abd de")) == pytest.approx(5 / 6)
    assert cer_reward(sample("ab", "")) == 0.0
    assert sentence_reward(sample("Alpha, bravo!", "alpha BRAVO")) == 1.0
    assert sentence_reward(sample("alpha bravo", "alpha")) == 0.0


def test_rates_by_kind_add_up_and_may_exceed_one() -> None:
    assert error_rates(sample("alpha bravo charlie delta", "alpha xray charlie")) == {
        "substitutions": 0.25,
        "deletions": 0.25,
        "insertions": 0.0,
        "wer": 0.5,
        "cer": pytest.approx(jiwer.cer("alpha bravo charlie delta", "alpha xray charlie")),
    }
    assert error_rates(sample("alpha", "alpha nine nine"))["insertions"] == 2.0


def test_an_empty_reference_wants_an_empty_hypothesis() -> None:
    for reward in (wer_reward, cer_reward, sentence_reward, length_reward):
        assert reward(sample("", "")) == 1.0
        assert reward(sample("", "...")) == 1.0
        assert reward(sample("", "alpha")) == 0.0
    assert word_errors("", "alpha bravo", "en").wer == float("inf")
    assert error_rates(sample("", "ab cd")) == {
        "substitutions": 0.0,
        "deletions": 0.0,
        "insertions": 2.0,
        "wer": 2.0,
        "cer": 5.0,
    }


def test_languages_without_spaces_are_scored_by_character() -> None:
    assert word_errors("你好世界", "你好时界", "zh") == WordErrors(1, 0, 0, 4)
    assert wer_reward(sample("你好世界", "你好 时界", "zh-TW")) == 0.75
    assert cer_reward(sample("你好世界", "你好 时界", "zh-TW")) == 0.75


def test_the_normaliser_decides_what_is_an_error() -> None:
    spoken = sample("It's twenty one dollars", "it is $21")
    assert wer_reward(spoken, normalizer="whisper-1") == 1.0
    assert sentence_reward(spoken, normalizer="whisper-1") == 1.0
    assert error_rates(spoken, normalizer="whisper-1")["cer"] == 0.0
    assert wer_reward(spoken) == 0.0
    for reward in (wer_reward, cer_reward, sentence_reward, error_rates, length_reward):
        with pytest.raises(ValueError, match=r"normalizer 'wisper' is unknown; there are plain-1, whisper-1"):
            reward(spoken, normalizer="wisper")


def test_words_are_paired_in_order() -> None:
    assert aligned("abcd", "axcd") == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert aligned("abcd", "acd") == [(0, 0), (2, 1), (3, 2)]
    assert aligned("ab", "axb") == [(0, 0), (1, 2)]
    assert aligned("", "ab") == []


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, 0.0), (4, 0.5), (8, 1.0), (10, 1.0), (12, 1.0), (18, 0.5), (24, 0.0), (50, 0.0)],
)
def test_length_reward_is_a_trapezoid(count: int, expected: float) -> None:
    one = sample("alpha " * 10, "nine " * count)
    assert length_reward(one, low=0.8, high=1.2) == pytest.approx(expected)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (1.1, 1.2), (0.5, 0.9), (0.5, float("inf")), (float("nan"), 1)])
def test_a_length_band_without_one_in_it_is_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="0 < low <= 1 <= high is needed"):
        length_reward(sample("a", "a"), low=low, high=high)
