"""Whatever the policy writes, every ASR reward answers, with finite numbers in the range that it promises."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.asr.errors import cer_reward, error_rates, length_reward, sentence_reward, wer_reward
from rewards.asr.form import casing_reward, punctuation_reward
from rewards.asr.group import confidence_reward, mwer_reward
from rewards.asr.hallucination import hallucination_penalty, insertion_rates, repetition, silence_penalty
from rewards.asr.keywords import keyword_rates, keyword_reward
from rewards.asr.language import language_reward, script_reward
from rewards.asr.numbers import number_form_reward, number_reward
from rewards.asr.timing import timing_reward
from rewards.types import RewardInput

RANGES: dict[Callable[..., float | dict[str, float]], tuple[float, float]] = {
    wer_reward: (0, 1),
    cer_reward: (0, 1),
    sentence_reward: (0, 1),
    error_rates: (0, math.inf),
    length_reward: (0, 1),
    keyword_rates: (0, 1),
    keyword_reward: (0, 1),
    insertion_rates: (0, 1),
    repetition: (0, 1),
    silence_penalty: (-1, 0),
    hallucination_penalty: (-1, 0),
    language_reward: (0, 1),
    script_reward: (0, 1),
    punctuation_reward: (0, 1),
    casing_reward: (0, 1),
    number_reward: (0, 1),
    number_form_reward: (0, 1),
    confidence_reward: (0, 1),
    timing_reward: (0, 1),
}
WITHOUT_NORMALIZER = {language_reward, script_reward, number_reward, number_form_reward}
ENGLISH_ONLY = {number_reward, number_form_reward}

PIECE = st.sampled_from(
    [
        "one",
        "twenty",
        "May",
        "5th",
        "$1,000.50",
        "%",
        "<|0.50|>",
        "<|",
        "Don't",
        "it's.",
        "(uh)",
        "[a",
        "你好",
        "हिन्दी",
        "ß",
    ]
)
TEXT = (
    st.lists(PIECE, max_size=8).map(" ".join)
    | st.text(max_size=20)
    | st.lists(PIECE | st.text(max_size=3)).map("".join)
)
WORDS = [{"word": "one", "start": 0.0, "end": 0.5}, {"word": "Don't", "start": 0.5, "end": 1.0}]


@settings(max_examples=400, deadline=None)
@given(
    *(TEXT, TEXT),
    st.sampled_from(["en", "de", "zh-TW", "hi", "tr"]),
    st.sampled_from(["plain-1", "whisper-1"]),
    st.lists(st.floats(-1e6, 0.1), min_size=1, max_size=4),
)
def test_every_answer_is_finite_and_in_range(
    reference: str, text: str, language: str, normalizer: str, logprobs: list[float]
) -> None:
    metadata = {"keywords": ["one", "twenty one"], "words": WORDS}
    sample = RewardInput("p", text, reference=reference, language=language, logprobs=tuple(logprobs), metadata=metadata)
    for reward, (low, high) in RANGES.items():
        if reward in ENGLISH_ONLY and language != "en":
            continue
        answer = reward(sample) if reward in WITHOUT_NORMALIZER else reward(sample, normalizer=normalizer)
        for number in answer.values() if isinstance(answer, dict) else [answer]:
            assert type(number) is float
            assert math.isfinite(number)
            assert low <= number <= high, reward.__name__
    for number in mwer_reward([sample, sample], normalizer=normalizer):
        assert number == 0.0


@given(TEXT)
def test_a_perfect_transcript_gets_the_best_of_each(text: str) -> None:
    sample = RewardInput("p", text, reference=text, logprobs=(-1.0,), metadata={"keywords": ["one"]})
    for reward, (_, high) in RANGES.items():
        if reward in (timing_reward, language_reward):
            continue  # their answers rest on more than the reference
        answer = reward(sample)
        best = 0.0 if reward in (error_rates, insertion_rates, repetition) else float(high)
        for number in answer.values() if isinstance(answer, dict) else [answer]:
            assert number == pytest.approx(best), reward.__name__
