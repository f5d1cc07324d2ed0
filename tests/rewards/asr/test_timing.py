"""Times of words and segments, by hand."""

from typing import Any

import pytest

from rewards.asr.timing import timing_reward, without_times
from rewards.types import RewardInput

WORDS = [
    {"word": "Hello,", "start": 0.1, "end": 0.5},
    {"word": "big", "start": 0.6, "end": 0.9},
    {"word": "world", "start": 1.0, "end": 1.4},
    {"word": "again.", "start": 2.0, "end": 2.5},
]


def score(text: str, words: Any = WORDS, language: str = "en", **keywords: Any) -> float:
    return timing_reward(RewardInput("p", text, language=language, metadata={"words": words}), **keywords)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<|0.00|> hello big world<|1.40|><|2.00|> again<|2.50|>", 1.0),
        ("<|0.10|>hello<|0.50|><|0.60|>big<|0.90|><|1.00|>world<|1.40|><|2.00|>again<|2.50|>", 1.0),
        ("<|0.00|> hello big world again<|2.60|>", 1.0),
        ("<|0.00|> hello big world<|1.80|><|2.00|> again<|2.50|>", 1 / 4),
        ("<|0.50|> hello big world<|1.40|><|2.00|> again<|2.50|>", 1 / 4),
        ("<|0.00|> hello big world<|1.40|> again", 3 / 4),
        ("hello big world again", 0.0),
        ("<|0.00|> hello pig world<|1.40|>", 1.0),
        ("<|0.00|> jello big world<|1.40|>", 1.0),
        ("<|0.00|> oh hello big world<|1.40|>", 0.0),
        ("<|0.00|> completely different<|1.40|>", 0.0),
        ("", 0.0),
        ("<|0.00|><|2.50|>", 0.0),
    ],
)
def test_share_of_right_words_in_segments_on_time(text: str, expected: float) -> None:
    assert score(text) == pytest.approx(expected)


def test_the_collar_is_in_seconds_and_includes_its_end() -> None:
    late = "<|0.30|>hello<|0.70|>"
    assert score(late, WORDS[:1]) == 1.0
    assert score(late, WORDS[:1], collar=0.19) == 0.0
    assert score("<|0.10|>hello<|0.50|>", WORDS[:1], collar=0.0) == 1.0
    with pytest.raises(ValueError, match="collar -1 s: at least 0"):
        score(late, collar=-1.0)


def test_words_are_normalised_on_both_sides() -> None:
    assert score("<|0|>twenty one<|1|>", [{"word": "21", "start": 0, "end": 1}], normalizer="whisper-1") == 1.0
    assert score("<|0|>x ray<|1|>", [{"word": "x-ray", "start": 0, "end": 1}]) == 1.0
    assert score("<|0|>你<|1|>好<|2|>", [{"word": "你好", "start": 0, "end": 2}], "zh", collar=1.0) == 1.0


def test_without_words_on_either_side_all_is_right() -> None:
    assert score("", []) == 1.0
    assert score("<|0.00|><|1.00|>", []) == 1.0
    assert score("<|0.00|>hello<|1.00|>", []) == 0.0


@pytest.mark.parametrize(
    "words",
    [
        None,
        "hello",
        ["hello"],
        [{"word": "hello"}],
        [{"word": "hello", "start": "soon", "end": 1}],
        [{"word": "hello", "start": 2, "end": 1}],
        [{"word": "hello", "start": -1, "end": 1}],
        [{"word": "hello", "start": float("nan"), "end": 1}],
    ],
)
def test_words_without_times_are_refused(words: Any) -> None:
    with pytest.raises(ValueError, match=r"metadata\.words (is|has) "):
        score("hello", words)


def test_times_are_taken_out_of_a_text() -> None:
    assert without_times("<|0.00|> hello<|1.20|><|1.20|>world<|2|>") == "hello world"
    assert without_times("a <|b|> 1.20") == "a <|b|> 1.20"
