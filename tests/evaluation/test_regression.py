"""The verdict of a regression gate, by hand and against the bootstrap called directly."""

import json

import numpy as np
import pytest

from rlhf_platform.errors import DataError
from rlhf_platform.evaluation.bootstrap import wer_difference
from rlhf_platform.evaluation.regression import GateResult, gate_json, gate_table, judged
from rlhf_platform.evaluation.report import as_lines


def scored(*values: float) -> dict[str, tuple[float, float]]:
    return {f"p{number}": (value, 1.0) for number, value in enumerate(values)}


def gate(before: dict, after: dict, higher: bool = True, drop: float = 0.02, **more: object) -> GateResult:
    return judged("r.yaml", "m", before, after, higher_is_better=higher, max_drop=drop, **more)  # type: ignore[arg-type]


def test_word_errors_are_added_up_over_clips_and_not_averaged() -> None:
    before = {"a": (1.0, 10.0), "b": (0.0, 2.0), "noise": (1.0, 0.0)}
    after = {"a": (1.0, 10.0), "b": (1.0, 2.0), "noise": (0.0, 0.0)}
    found = gate(before, after, higher=False, drop=0.0)
    assert (found.before, found.after, found.difference.point) == (2 / 12, 2 / 12, 0.0)
    assert not found.fell


def test_the_interval_is_that_of_the_paired_bootstrap() -> None:
    rng = np.random.default_rng(3)
    words = rng.integers(1, 9, 40).astype(float)
    first, second = rng.integers(0, 4, 40).astype(float), rng.integers(0, 5, 40).astype(float)
    columns = [{f"p{i}": (e, w) for i, (e, w) in enumerate(zip(es, words, strict=True))} for es in (first, second)]
    found = gate(*columns, higher=False, resamples=500, confidence=0.9)
    assert found.difference == wer_difference(first, second, words, resamples=500, confidence=0.9)


@pytest.mark.parametrize(
    ("higher", "after", "fell"),
    [(True, 0.48, False), (True, 0.479, True), (True, 0.9, False), (False, 0.52, False), (False, 0.521, True)],
)
def test_a_fall_is_a_change_for_the_worse_by_more_than_is_allowed(higher: bool, after: float, fell: bool) -> None:
    found = gate(scored(0.5, 0.5, 0.5), scored(after, after, after), higher)
    # All prompts change alike, so the interval is a point, and certain.
    assert (found.fell, found.certain, found.passed) == (fell, True, not fell)
    assert found.verdict == ("fell" if fell else "held")


def test_what_lies_on_both_sides_of_the_limit_is_not_certain() -> None:
    fell = gate(scored(1, 1, 1, 1), scored(1, 1, 1, 0))
    assert (fell.fell, fell.certain, fell.verdict) == (True, False, "fell, not certain")
    held = gate(scored(1, 1, 1, 1, 0), scored(1, 1, 1, 0, 1))
    assert (held.fell, held.certain, held.verdict) == (False, False, "held, not certain")
    assert gate(scored(*[1] * 50), scored(*[0] * 50)).certain


def test_a_score_that_is_lost_is_not_left_out_in_silence() -> None:
    before = scored(*[0.5] * 20)
    one = gate(before, {name: value for name, value in before.items() if name != "p0"})
    assert (one.prompts, one.lost, one.passed) == (19, 1, True)
    two = gate(before, {name: value for name, value in before.items() if name not in ("p0", "p1")})
    assert (two.fell, two.passed, two.verdict) == (False, False, "2 of 20 prompts have no score any more")
    none = gate(before, {})
    assert (none.prompts, none.lost, none.passed) == (0, 20, False)
    assert json.loads(gate_json([none], "a", "b"))["entries"][0]["after"] is None


def test_turns_of_a_session_are_drawn_together() -> None:
    before, after = scored(1, 1, 1, 1, 0, 0), scored(0, 0, 1, 1, 0, 0)
    sessions = {"p0": "x", "p1": "x", "p2": "y", "p3": "y"}
    found = gate(before, after, sessions=sessions, resamples=300)
    by_hand = wer_difference(
        np.array([2.0, 2.0, 0.0, 0.0]), np.array([0.0, 2.0, 0.0, 0.0]), np.array([2.0, 2.0, 1.0, 1.0]), resamples=300
    )
    assert found.difference == by_hand
    assert (found.before, found.after, found.prompts) == (4 / 6, 2 / 6, 6)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(DataError, match="m: no prompt has it before"):
        gate({}, scored(1.0))
    with pytest.raises(DataError, match="'a' has another reference"):
        gate({"a": (1.0, 3.0)}, {"a": (1.0, 4.0)}, higher=False)


def test_the_report_says_each_verdict() -> None:
    results = [gate(scored(1, 1), scored(1, 1)), gate(scored(0, 0), scored(1, 1), higher=False)]
    lines = as_lines(gate_table(results))
    assert [line.split()[-1] for line in lines[-2:]] == ["held", "fell"]
    assert lines[-1].split()[:7] == ["r.yaml", "m", "lower", "2", "0.0000", "1.0000", "+1.0000"]
    found = json.loads(gate_json(results, "start", "end"))
    assert (found["before"], found["after"], found["passed"]) == ("start", "end", False)
    assert [(e["fell"], e["certain"], e["difference"]["point"]) for e in found["entries"]] == [
        (False, True, 0.0),
        (True, True, 1.0),
    ]
