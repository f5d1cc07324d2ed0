"""Keyword precision and recall, counted by hand."""

from typing import Any

import pytest

from rewards.asr.keywords import keyword_rates, keyword_reward
from rewards.types import RewardInput


def sample(reference: str, text: str, language: str = "en", **metadata: Any) -> RewardInput:
    return RewardInput("p", text, reference=reference, language=language, metadata=metadata)


@pytest.mark.parametrize(
    ("reference", "text", "precision", "recall"),
    [
        ("call Ada Lovelace in Paris", "call ada lovelace in paris", 1.0, 1.0),
        ("call Ada Lovelace in Paris", "call eda lovelace in Paris!", 1.0, 1 / 2),
        ("meet in Paris", "meet Ada Lovelace in Paris", 1 / 2, 1.0),
        ("Paris Paris", "paris", 1.0, 1 / 2),
        ("paris", "paris paris paris", 1 / 3, 1.0),
        ("nothing", "nothing at all", 1.0, 1.0),
        ("nothing", "paris", 0.0, 0.0),
        ("paris", "", 0.0, 0.0),
        ("parisian", "parisian", 1.0, 1.0),
    ],
)
def test_rates_by_hand(reference: str, text: str, precision: float, recall: float) -> None:
    one = sample(reference, text, keywords=["Ada Lovelace", "Paris", "paris"])
    assert keyword_rates(one) == pytest.approx({"precision": precision, "recall": recall})
    assert keyword_reward(one) == pytest.approx((precision + recall) / 2)


def test_occurrences_do_not_overlap() -> None:
    one = sample("no no no no", "no no no", keywords=["no no"])
    assert keyword_rates(one) == {"precision": 1.0, "recall": 0.5}


def test_the_keyword_argument_goes_before_the_row() -> None:
    one = sample("paris", "rome", keywords=["rome"])
    assert keyword_reward(one) == 0.0
    assert keyword_reward(one, keywords=["berlin"]) == 1.0


def test_keywords_are_found_by_character_and_by_the_normaliser() -> None:
    assert keyword_reward(sample("我在北京", "我在 北京。", "zh", keywords=["北京"])) == 1.0
    gate = sample("gate twenty one", "gate 21", keywords=["gate 21"])
    assert keyword_reward(gate, normalizer="whisper-1") == 1.0
    assert keyword_rates(gate) == {"precision": 0.0, "recall": 0.0}


@pytest.mark.parametrize("keywords", [None, [], "paris", ["paris", 7], 3])
def test_without_keywords_there_is_no_answer(keywords: Any) -> None:
    with pytest.raises(ValueError, match=r"a list of phrases is needed, as metadata\.keywords"):
        keyword_reward(sample("a", "a", keywords=keywords))


def test_a_keyword_without_a_letter_is_refused() -> None:
    with pytest.raises(ValueError, match=r"keyword '\?!' has nothing left after plain-1"):
        keyword_reward(sample("a", "a", keywords=["a", "?!"]))
