"""The bootstrap against a plain loop over the same draws, and against the normal approximation."""

from statistics import NormalDist

import numpy as np
import pytest

from rlhf_platform.evaluation import bootstrap
from rlhf_platform.evaluation.bootstrap import wer_difference, wer_interval


def make(utterances: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Errors before and after, correlated, and words: each (utterances,)."""
    rng = np.random.default_rng(seed)
    words = rng.integers(1, 12, utterances)
    hard = rng.beta(2, 5, utterances)
    return rng.binomial(words, hard), rng.binomial(words, 0.8 * hard), words


def test_difference_equals_a_plain_loop_over_the_same_draws() -> None:
    before, after, words = make(37)
    drawn = np.random.default_rng(5).integers(0, 37, size=(400, 37))
    differences = []
    for row in drawn:
        w = sum(int(words[i]) for i in row)
        differences.append(sum(int(after[i]) for i in row) / w - sum(int(before[i]) for i in row) / w)
    found = wer_difference(before, after, words, resamples=400, confidence=0.9, seed=5)
    assert found.point == pytest.approx(after.sum() / words.sum() - before.sum() / words.sum(), abs=1e-12)
    assert [found.low, found.high] == pytest.approx(np.quantile(differences, [0.05, 0.95]), abs=1e-12)


def test_decodings_of_one_utterance_are_drawn_together() -> None:
    before, _, words = make(29)
    after = np.stack([make(29, seed)[1] for seed in (1, 2, 3)])
    drawn = np.random.default_rng(0).integers(0, 29, size=(300, 29))
    differences = []
    for row in drawn:
        pooled = sum(int(after[r, i]) for i in row for r in range(3)) / sum(3 * int(words[i]) for i in row)
        differences.append(pooled - sum(int(before[i]) for i in row) / sum(int(words[i]) for i in row))
    found = wer_difference(before, after, words, resamples=300, seed=0)
    assert [found.low, found.high] == pytest.approx(np.quantile(differences, [0.025, 0.975]), abs=1e-12)


def test_the_same_decoding_three_times_is_worth_no_more_than_once() -> None:
    before, after, words = make(50)
    once = wer_difference(before, after, words, resamples=500)
    thrice = wer_difference(np.stack([before] * 3), np.stack([after] * 3), words, resamples=500)
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high), abs=1e-12)


def test_interval_agrees_with_the_normal_approximation_of_a_ratio() -> None:
    before, after, words = make(4000)
    z = NormalDist().inv_cdf(0.975)
    for errors, found in (
        (before, wer_interval(before, words, resamples=4000)),
        (after - before, wer_difference(before, after, words, resamples=4000)),
    ):
        rate = errors.sum() / words.sum()
        # Delta method: the variance of a ratio of sums is that of its residuals.
        deviation = np.sqrt(np.sum((errors - rate * words) ** 2)) / words.sum()
        assert found.point == pytest.approx(rate, abs=1e-12)
        assert found.low == pytest.approx(rate - z * deviation, abs=0.12 * deviation)
        assert found.high == pytest.approx(rate + z * deviation, abs=0.12 * deviation)


def test_pairing_narrows_the_interval() -> None:
    before, _, words = make(200)
    found = wer_difference(before, np.maximum(before - 1, 0), words, resamples=1000)
    alone = wer_interval(before, words, resamples=1000)
    assert found.high < 0
    assert found.high - found.low < 0.5 * (alone.high - alone.low)


def test_drawing_in_pieces_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before, after, words = make(37)
    whole = wer_difference(before, after, words, resamples=501, seed=3)
    monkeypatch.setattr(bootstrap, "_CELLS", 37 * 7)
    assert wer_difference(before, after, words, resamples=501, seed=3) == whole


def test_draws_without_a_reference_word_are_left_out() -> None:
    found = wer_interval(np.array([1, 1]), np.array([0, 2]), resamples=200)
    # Draws: both clips (2/2), the second twice (2/4); the first twice has no WER.
    assert (found.point, found.low, found.high) == (1.0, 0.5, 1.0)


@pytest.mark.parametrize(
    ("errors", "words"),
    [([1, 2], [1, 2, 3]), ([[[1]]], [1]), ([], []), ([1], [0]), ([1], [-1]), ([[1, 2]], [[1, 2]])],
)
def test_shapes_that_disagree_and_empty_references_are_refused(errors: list, words: list) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match="shape"):
        wer_interval(np.array(errors), np.array(words))
