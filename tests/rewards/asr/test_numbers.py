"""Numbers and dates, read and counted by hand."""

import pytest

from rewards.asr.numbers import number_form_reward, number_reward, numbers_of
from rewards.types import RewardInput


def sample(reference: str, text: str, language: str = "en") -> RewardInput:
    return RewardInput("p", text, reference=reference, language=language)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no numbers here", []),
        ("twenty one", [("21", "twenty one")]),
        ("one", [("1", "one")]),
        ("1", [("1", "1")]),
        ("1.5 or 1.50", [("1.5", "1 5"), ("1.5", "1 50")]),
        ("1,000 people", [("1000", "1 000")]),
        ("pay $20 to me", [("$20", "20")]),
        ("pay twenty dollars to me", [("$20", "twenty dollars")]),
        ("50% of it", [("50%", "50")]),
        ("fifty percent of it", [("50%", "fifty percent")]),
        ("the third man", [("3", "third")]),
        ("the nineteen fifties", [("1950s", "nineteen fifties")]),
        ("minus five", [("-5", "minus five")]),
        ("agent double oh seven", [("7", "double oh seven")]),
        ("agent 007", [("7", "007")]),
        ("May 5th, 2021", [("2021-5-5", "may 5th 2021")]),
        ("may fifth twenty twenty one", [("2021-5-5", "may fifth twenty twenty one")]),
        ("the fifth of May, 2021", [("2021-5-5", "fifth of may 2021")]),
        ("5 May 2021", [("2021-5-5", "5 may 2021")]),
        ("on Sept. 1st we met", [("?-9-1", "sept 1st")]),
        ("May 45", [("45", "45")]),
        ("you may go at 5", [("5", "5")]),
    ],
)
def test_values_and_forms(text: str, expected: list[tuple[str, str]]) -> None:
    assert numbers_of(text) == expected


@pytest.mark.parametrize(
    ("reference", "text", "value", "form"),
    [
        ("May 5th, 2021", "may fifth twenty twenty one", 1.0, 0.0),
        ("May 5th, 2021", "may 5th 2021", 1.0, 1.0),
        ("May 5th, 2021", "may 6th 2021", 0.0, 0.0),
        ("May 5th, 2021", "may 5th", 0.0, 0.0),
        ("call 3 people and 4 dogs", "call three people and 4 dogs", 1.0, 1 / 2),
        ("3 cats and 4 dogs", "3 cats and no dogs", 2 / 3, 1.0),
        ("3 cats", "3 cats and 3 dogs", 2 / 3, 1.0),
        ("$20", "20 dollars", 1.0, 0.0),
        ("$20", "20", 0.0, 0.0),
        ("no numbers", "none", 1.0, 1.0),
        ("no numbers", "5", 0.0, 1.0),
        ("5", "", 0.0, 0.0),
    ],
)
def test_rewards_by_hand(reference: str, text: str, value: float, form: float) -> None:
    assert number_reward(sample(reference, text)) == pytest.approx(value)
    assert number_form_reward(sample(reference, text)) == pytest.approx(form)


def test_other_languages_are_refused() -> None:
    assert number_reward(sample("5", "five", "en-GB")) == 1.0
    for reward in (number_reward, number_form_reward):
        with pytest.raises(ValueError, match="language 'de': numbers are read in English only"):
            reward(sample("5", "5", "de"))
