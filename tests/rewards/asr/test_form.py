"""Punctuation and capitals, counted by hand."""

import pytest

from rewards.asr.form import casing_reward, punctuation_reward
from rewards.types import RewardInput


def sample(reference: str, text: str, language: str = "en") -> RewardInput:
    return RewardInput("p", text, reference=reference, language=language)


@pytest.mark.parametrize(
    ("reference", "text", "language", "expected"),
    [
        ("Hello, world!", "hello, world!", "en", 1.0),
        ("Hello, world!", "hello world", "en", 0.0),
        ("hello world", "hello world", "en", 1.0),
        ("hello world", "hello, world", "en", 0.0),
        ("Hello, world. How are you?", "Hello, world! How are you", "en", 2 * 1 / (3 + 2)),
        ("One, two, three.", "One, to three.", "en", 2 * 2 / (3 + 2)),
        ("One, two.", "One, two too.", "en", 2 * 1 / (2 + 2)),
        ("Wait... what?!", "Wait. what?!", "en", 2 * 3 / (5 + 3)),
        ("It is 3.50 at 10:30 in the U.S", "It is 3.50 at 10:30 in the U.S", "en", 1.0),
        ("It is 3.50", "It is 3.50.", "en", 0.0),
        ("你好，世界。", "你好,世界.", "zh", 1.0),
        ("你好，世界。", "你好，时界", "zh", 2 * 1 / (2 + 1)),
        ("مرحبا، عالم؟", "مرحبا, عالم?", "ar", 1.0),
        ("नमस्ते।", "नमस्ते.", "hi", 1.0),
        ("¿Qué? No.", "Qué? No.", "es", 2 * 2 / (3 + 2)),
        ("", "?", "en", 0.0),
        ("", "", "en", 1.0),
    ],
)
def test_punctuation_by_hand(reference: str, text: str, language: str, expected: float) -> None:
    assert punctuation_reward(sample(reference, text, language)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("reference", "text", "language", "expected"),
    [
        ("Hello World", "Hello World", "en", 1.0),
        ("Hello World", "hello World", "en", 1 / 2),
        ("Hello World", "HELLO word", "en", 0.0),
        ("the NASA iPhone", "The NASA iphone", "en", 1 / 3),
        ("I don't know", "I don\u2019t Know", "en", 2 / 3),
        ("seven 7 8", "seven 7 8", "en", 1.0),
        ("7 8", "7", "en", 1.0),
        ("Hello", "goodbye", "en", 0.0),
        ("Hello", "", "en", 0.0),
        ("你好", "你", "zh", 1.0),
        ("Élan vital", "\u0045\u0301lan Vital", "fr", 1 / 2),
        ("Straße", "Strasse", "de", 1.0),
        ("Москва далеко", "москва далеко", "ru", 1 / 2),
        ("New-York", "New york", "en", 1 / 2),
    ],
)
def test_casing_by_hand(reference: str, text: str, language: str, expected: float) -> None:
    assert casing_reward(sample(reference, text, language)) == pytest.approx(expected)


def test_the_normaliser_pairs_the_words() -> None:
    one = sample("Dr. Who won't pay £20, ever.", "doctor Who will not pay £20, ever.")
    assert casing_reward(one, normalizer="whisper-1") == pytest.approx(5 / 6)
    assert punctuation_reward(one, normalizer="whisper-1") == pytest.approx(2 * 2 / (3 + 2))
    for reward in (casing_reward, punctuation_reward):
        with pytest.raises(ValueError, match="normalizer 'x' is unknown"):
            reward(one, normalizer="x")
