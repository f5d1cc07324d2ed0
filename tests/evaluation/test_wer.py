"""Corpus WER against jiwer and by hand."""

import jiwer
import pytest

from rewards.asr.errors import WordErrors
from rlhf_platform.evaluation.wer import corpus_wer, total

PAIRS = [
    ("alpha bravo charlie", "alpha xray charlie"),
    ("delta", "delta delta echo"),
    ("november one two three four five", "november one two"),
]


def test_totals_by_hand() -> None:
    assert corpus_wer(PAIRS, "en") == WordErrors(substitutions=1, deletions=3, insertions=2, reference_words=10)
    assert corpus_wer(PAIRS, "en").wer == 0.6


def test_corpus_wer_is_that_of_jiwer_and_not_the_mean_over_clips() -> None:
    references, hypotheses = [list(side) for side in zip(*PAIRS, strict=True)]
    assert corpus_wer(PAIRS, "en").wer == pytest.approx(jiwer.wer(references, hypotheses), abs=1e-12)
    assert sum(jiwer.wer(r, h) for r, h in PAIRS) / 3 != pytest.approx(0.6, abs=0.1)


def test_nothing_adds_up_to_nothing() -> None:
    assert total([]) == WordErrors(0, 0, 0, 0)
    assert total([]).wer == 0.0
