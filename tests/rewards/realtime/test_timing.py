"""Waiting, speaking and pausing by hand; sound from a generator whose silences are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.realtime import answer_seconds, latency, pauses, reasoning_length
from rewards.types import RewardInput
from rlhf_platform.types import StopReason, Waveform


def sample(
    text: str, tokens: int = 0, stop: StopReason = StopReason.EOS, speech: Waveform | None = None
) -> RewardInput:
    return RewardInput("p", text, tokens=(7,) * tokens, stop_reason=stop, speech=speech)


def sound(*seconds: float) -> Waveform:
    """Noise and silence in turn, noise first."""
    rng = np.random.default_rng(0)
    parts = [rng.uniform(-0.5, 0.5, round(s * 16_000)) * (number % 2 == 0) for number, s in enumerate(seconds)]
    return np.concatenate(parts).astype(np.float32)


def test_tokens_before_the_reply_are_the_traces_share_of_the_characters() -> None:
    # 20 of 25 characters stand before "aye": `<think>abcd</think> ` and `ayeee`; 11 tokens, the last of which ends it.
    found = latency(sample("<think>abcd</think> ayeee", 11), most=16)
    assert found == pytest.approx({"tokens": 10 * 20 / 25, "words": 1.0, "reward": -0.5})
    cut = latency(sample("<think>abcd</think> ayeee", 11, StopReason.LENGTH))
    assert cut["tokens"] == pytest.approx(11 * 20 / 25)


def test_a_trace_that_says_nothing_costs_its_marks_and_no_trace_costs_nothing() -> None:
    assert latency(sample("<think></think> four", 21))["tokens"] == pytest.approx(20 * 16 / 20)
    assert latency(sample("aye aye", 4)) == {"tokens": 0.0, "words": 0.0, "reward": 0.0}
    assert latency(sample(" aye ", 4))["tokens"] == 0.0


@pytest.mark.parametrize("text", ["", "<think>red box", "<think>red box</think>", "<think>a</think> ..."])
def test_what_is_never_spoken_is_as_late_as_can_be(text: str) -> None:
    assert latency(sample(text, 6))["reward"] == -1.0


def test_a_long_trace_waits_no_longer_than_the_worst() -> None:
    assert latency(sample("<think>a b c d e f g h</think> aye", 100))["reward"] == -1.0


def test_latency_needs_tokens_and_bounds_that_make_sense() -> None:
    with pytest.raises(ValueError, match="sample of 'p' has no tokens"):
        latency(sample("aye"))
    with pytest.raises(ValueError, match="most 0: at least 1 token"):
        latency(sample("aye", 1), most=0)
    with pytest.raises(ValueError, match="most 0: at least 1 word"):
        reasoning_length(sample("aye"), most=0)
    with pytest.raises(ValueError, match="most 0 and pace"):
        answer_seconds(sample("aye"), most=0)
    with pytest.raises(ValueError, match="most 1 and pace"):
        pauses(sample("aye"), most=1)


def test_words_of_a_trace_beyond_the_most() -> None:
    text = "<think>open the red box</think> aye"
    assert reasoning_length(sample(text), most=4) == {"words": 4.0, "over": 0.0, "reward": 0.0}
    assert reasoning_length(sample(text), most=2) == {"words": 4.0, "over": 2.0, "reward": -1.0}
    assert reasoning_length(sample("<think>open the red box"), most=3)["over"] == 1.0
    assert reasoning_length(sample("aye, i open the red box"), most=3)["words"] == 0.0


def test_seconds_of_a_reply_by_its_words_and_by_its_sound() -> None:
    text = "<think>not spoken</think> one two three four five"
    assert answer_seconds(sample(text), most=1.0) == pytest.approx({"seconds": 2.0, "over": 1.0, "reward": -1.0})
    assert answer_seconds(sample(text), most=2.0)["reward"] == 0.0
    assert answer_seconds(sample(text), pace=5.0)["seconds"] == pytest.approx(1.0)
    heard = answer_seconds(sample(text, speech=sound(3.0)), most=2.0)
    assert heard == pytest.approx({"seconds": 3.0, "over": 1.0, "reward": -0.5})
    chinese = RewardInput("p", "你好吗", language="zh")
    assert answer_seconds(chinese, pace=3.0)["seconds"] == pytest.approx(1.0)


def test_silence_is_measured_in_the_sound() -> None:
    found = pauses(sample("aye", speech=sound(0.6, 0.3, 0.6, 0.05, 0.3, 0.4)), most=0.2)
    assert found["share"] == pytest.approx(0.75 / 2.25, abs=0.02)
    assert found["pauses"] == 1.0  # 0.05 s is none, and what is at the end is none
    assert found["reward"] == pytest.approx(-(found["share"] - 0.2) / 0.8)
    assert pauses(sample("aye", speech=sound(1.0)))["reward"] == 0.0


@pytest.mark.parametrize("speech", [np.zeros(16_000, np.float32), sound(0.01), np.zeros(0, np.float32)])
def test_sound_without_speech_is_all_silence(speech: Waveform) -> None:
    assert pauses(sample("aye", speech=speech)) == {"share": 1.0, "pauses": 0.0, "reward": -1.0}


@pytest.mark.parametrize(
    ("text", "seconds", "rests"),
    [
        ("one two three four five", 2.0, []),
        ("one two, three four five", 2.0, [0.2]),
        ("<think>a, b. c</think> one two. three, four five!", 2.0, [0.5, 0.2]),
        ("... one, ... two three four five", 2.0, [0.5]),
        ("costs 3.50 or 1,000 now,", 2.0, []),
        ("one.", 0.4, []),
    ],
)
def test_pauses_as_punctuation_has_them(text: str, seconds: float, rests: list[float]) -> None:
    found = pauses(sample(text))
    assert found["share"] == pytest.approx(sum(rests) / (seconds + sum(rests)))
    assert found["pauses"] == len(rests)


TEXT = st.lists(st.sampled_from(["<think>", "</think>", "aye", "red", ",", ".", "\n", "你好", "3.5"]), max_size=12)


@given(TEXT.map(" ".join) | st.text(max_size=20), st.sampled_from(["en", "zh"]), st.sampled_from([*StopReason]))
def test_whatever_is_written_every_answer_is_finite_and_in_range(text: str, language: str, stop: StopReason) -> None:
    given_sample = RewardInput("p", text, tokens=(1,) * 9, language=language, stop_reason=stop)
    found = latency(given_sample)
    assert 0.0 <= found["tokens"] <= 9.0
    assert -1.0 <= found["reward"] <= 0.0
    assert 0.0 <= pauses(given_sample)["share"] <= 1.0
    assert -1.0 <= pauses(given_sample)["reward"] <= 0.0
    for reward in (reasoning_length, answer_seconds):
        assert reward(given_sample)["reward"] <= 0.0
