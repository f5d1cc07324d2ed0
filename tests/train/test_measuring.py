"""What a step says of its samples, against hand calculations and numpy."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.asr.errors import WordErrors
from rlhf_platform.recipe.metrics import unknown_metric
from rlhf_platform.train.measuring import GAP_STEPS, heldout_gap, sample_metrics
from rlhf_platform.train.spread import CORRELATED_PARTS, correlations, spread_metrics
from rlhf_platform.train.transcripts import error_rates, repeated_ngram_rate, transcript_metrics
from rlhf_platform.types import Failed, Outcome, Prompt, Sample, Scored, ScoredSample, StopReason

FAILED = Failed("timeout", "no answer in 30 s", "judge")
NUMBERS = st.floats(-1e6, 1e6)


def sample(
    text: str, reference: str = "alpha bravo", language: str = "en", duration: float = 0.0, tokens: int = 2
) -> Sample:
    prompt = Prompt("p", "clip.wav", reference, language, duration=duration)
    return Sample(prompt, (1,) * tokens, (-0.5,) * tokens, text, StopReason.EOS, 3)


def scored(outcome: Outcome, **of_sample: Any) -> ScoredSample:
    return ScoredSample(sample(**{"text": "alpha", **of_sample}), outcome)


def test_the_spread_of_the_reward_and_of_each_part() -> None:
    """Of 1, 2, 3, 6 the mean is 3 and the squares of the differences are 4, 1, 0, 9."""
    outcomes = [Scored(v, {"f0": 2 * v} | ({"rare": 1.0} if v == 6 else {}), {"f0": -v}) for v in (1.0, 2.0, 3.0, 6.0)]
    metrics = spread_metrics(outcomes)
    assert metrics["reward_std"] == pytest.approx(math.sqrt(14 / 4))
    assert (metrics["reward/f0"], metrics["reward_shaped/f0"]) == (6, -3)
    assert metrics["reward_std/f0"] == pytest.approx(2 * math.sqrt(14 / 4))
    assert (metrics["reward/rare"], metrics["reward_std/rare"]) == (1, 0)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=20))
def test_correlations_are_those_of_numpy(pairs: list[tuple[float, float]]) -> None:
    x, y = np.array(pairs).T
    found = correlations([{"b": b, "a": a} for a, b in pairs])
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert found == {}
    elif min(np.ptp(x) / max(abs(x)), np.ptp(y) / max(abs(y))) > 1e-6 and min(np.ptp(x), np.ptp(y)) > 1e-100:
        assert found == {("a", "b"): pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-6)}
    else:
        assert -1 <= found["a", "b"] <= 1


def test_a_correlation_is_over_the_samples_that_have_both() -> None:
    parts: list[Mapping[str, float]] = [{"a": 1, "b": 3}, {"a": 9}, {"a": 2, "b": 1}, {"b": 5}]
    assert correlations(parts) == {("a", "b"): pytest.approx(-1)}


def test_no_more_than_28_pairs_are_logged() -> None:
    parts = [{f"part{i:02}": float(i * j) for i in range(1, 20)} for j in range(3)]
    found = correlations(parts)
    assert len(found) == CORRELATED_PARTS * (CORRELATED_PARTS - 1) / 2 == 28
    assert max(b for _, b in found) == "part08"


def test_word_errors_by_kind_are_per_reference_word() -> None:
    rates = error_rates(WordErrors(substitutions=2, deletions=1, insertions=3, reference_words=8))
    assert rates == {
        "sample_wer": 0.75,
        "substitution_rate": 0.25,
        "deletion_rate": 0.125,
        "insertion_rate": 0.375,
        "insertion_deletion_balance": 0.5,
    }


@given(*[st.integers(0, 50)] * 4)
def test_the_rates_add_up_and_the_balance_is_bounded(
    substitutions: int, deletions: int, insertions: int, hits: int
) -> None:
    rates = error_rates(WordErrors(substitutions, deletions, insertions, hits + substitutions + deletions))
    assert -1 <= rates["insertion_deletion_balance"] <= 1
    kinds = rates["substitution_rate"] + rates["deletion_rate"] + rates["insertion_rate"]
    assert kinds == pytest.approx(rates["sample_wer"])


def test_a_loop_counts_and_what_the_reference_repeats_does_not() -> None:
    """Ten words in a loop of two are seven runs of four, two of them different."""
    loop = ["a", "b"] * 5
    assert repeated_ngram_rate([loop], [["a", "b"]]) == 5 / 7
    assert repeated_ngram_rate([loop], [loop]) == 0
    assert repeated_ngram_rate([loop, list("cdefgh")], [["a"], ["c"]]) == 5 / 10
    assert repeated_ngram_rate([["a"] * 3], [[]]) == 0


@pytest.mark.parametrize(
    ("text", "reference", "language", "evasive"),
    [
        ("Sorry, I didn’t hear you clearly.", "alpha bravo", "en", True),
        ("Could you repeat that?", "could you repeat that", "en", False),
        ("unintelligibly", "alpha bravo", "en", False),
        ("对不起，我没听清。", "你好", "zh-CN", True),
        ("I did not hear that.", "你好", "zh", True),
        ("", "alpha bravo", "en", False),
    ],
)
def test_excuses(text: str, reference: str, language: str, evasive: bool) -> None:
    assert transcript_metrics([sample(text, reference, language)])["evasive_rate"] == evasive


def test_pace_is_over_the_prompts_that_have_a_duration() -> None:
    metrics = transcript_metrics([sample("one two", duration=1.0), sample("one", duration=0.25), sample("one two")])
    assert (metrics["words_per_second"], metrics["words_per_second_std"]) == (3, 1)
    assert "words_per_second" not in transcript_metrics([sample("one")])


def test_texts_without_a_word_are_empty() -> None:
    assert transcript_metrics([sample(""), sample(" ... "), sample("alpha"), sample("a")])["empty_rate"] == 0.5


def test_the_lengths_are_of_all_samples_and_the_reward_of_those_that_have_one() -> None:
    metrics = sample_metrics([scored(Scored(1.0, {}), tokens=2), scored(FAILED, tokens=6)], "asr")
    assert (metrics["completion_tokens"], metrics["completion_tokens_std"]) == (4, 2)
    assert (metrics["reward"], metrics["reward_std"]) == (1, 0)


@given(
    st.lists(
        st.tuples(
            st.none() | st.lists(NUMBERS, min_size=2, max_size=2),
            st.sampled_from(["", "alpha", "alpha bravo bravo", "did not hear"]),
            st.sampled_from(["", "alpha bravo"]),
            st.sampled_from([0.0, 1.5]),
        ),
        max_size=6,
    )
)
def test_every_metric_is_finite_or_has_no_samples_and_a_monitor_may_name_it(drawn: list[Any]) -> None:
    outcomes = [Scored(sum(v), {"x": v[0], "y.f0": v[1]}, {"x": -v[0]}) if v else FAILED for v, *_ in drawn]
    samples = [sample(text, reference, duration=time) for _, text, reference, time in drawn]
    metrics = sample_metrics([ScoredSample(*pair) for pair in zip(samples, outcomes, strict=True)], "asr")
    assert {name: said for name in metrics if (said := unknown_metric("asr", name, ["x", "y"]))} == {}
    odd = {name for name, value in metrics.items() if not math.isfinite(value)}
    assert odd <= {"reward", "reward_std", "sample_wer", "insertion_rate"} or not drawn
    assert "reward" not in odd or not any(v for v, *_ in drawn)


def test_the_gap_is_how_much_more_the_reward_grew_than_the_accuracy() -> None:
    """The reward from .3 to .8, the WER from 40 to 30 %: .5 gained on paper, .1 in truth."""
    rewards = [0.3] * GAP_STEPS + [math.nan, 0.5, 0.6] + [0.8] * GAP_STEPS
    history = [{"reward": reward} for reward in rewards]
    history[-1]["heldout_wer"] = 0.3
    assert heldout_gap(history, wer_before=0.4) == pytest.approx(0.4)


def test_the_gap_of_an_honest_run_is_zero_and_of_a_lost_one_positive() -> None:
    honest = [{"reward": 0.6}] * 5 + [{"reward": 0.7}] * 4 + [{"reward": 0.7, "heldout_wer": 0.3}]
    assert heldout_gap(honest, wer_before=0.4) == pytest.approx(0)
    assert heldout_gap([{"reward": 0.6, "heldout_wer": 0.5}], wer_before=0.4) == pytest.approx(0.1)
    assert math.isnan(heldout_gap([{"reward": math.nan, "heldout_wer": 0.5}], wer_before=0.4))
