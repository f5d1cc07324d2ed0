"""From answers to outcomes: by hand, and against numpy."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rewards.algebra import combine, effective_weights
from rewards.answers import Answer
from rlhf_platform.recipe.expressions import EvaluationError
from rlhf_platform.recipe.schema import RewardConfig, ScoringConfig
from rlhf_platform.types import Failed, Outcome, Scored

GROUP = 4
LATE = Failed("timeout", "no answer", "a")


def term(name: str = "a", **keys: Any) -> RewardConfig:
    return RewardConfig(fn=f"mine:{name}", **keys)


def one(terms: Sequence[RewardConfig], *answers: Answer, step: int = 1, **scoring: Any) -> Outcome:
    """The outcome of one sample without a group."""
    (outcome,) = combine(terms, ScoringConfig(**scoring), [[answer] for answer in answers], None, step)
    return outcome


def value(outcome: Outcome) -> float:
    assert isinstance(outcome, Scored), outcome
    return outcome.value


def failure(outcome: Outcome) -> tuple[str, str, str]:
    assert isinstance(outcome, Failed), outcome
    return outcome.kind, outcome.term, outcome.message


def test_terms_are_weighted_and_summed_and_their_numbers_kept() -> None:
    outcome = one([term("a", weight=2.0), term("b", weight=-0.5)], 0.75, {"x": 1.0, "y": 2.0})
    assert outcome == Scored(2 * 0.75 - 0.5 * 3, {"a": 0.75, "b.x": 1.0, "b.y": 2.0})


def test_a_part_alone_counts_and_all_are_kept() -> None:
    assert one([term(part="y")], {"x": 1.0, "y": 2.0}) == Scored(2.0, {"a.x": 1.0, "a.y": 2.0})
    assert failure(one([term(part="z")], {"x": 1.0, "y": 2.0})) == (
        "wrong_shape",
        "a",
        "the answer has no part z; it has x, y",
    )
    assert failure(one([term(part="z")], 1.0)) == ("wrong_shape", "a", "the answer has no part z; it is a number")


def test_a_number_out_of_its_range_is_a_failure() -> None:
    bounded = [term(range=[0.0, 1.0])]
    assert [value(one(bounded, x)) for x in (0.0, 1.0)] == [0.0, 1.0]
    assert failure(one(bounded, 1.5)) == ("out_of_range", "a", "1.5 is not in the range from 0 to 1")
    assert failure(one(bounded, {"x": -0.5, "y": -0.5}))[0] == "out_of_range"
    assert value(one([term(range=[0.0, math.inf])], 1e300)) == 1e300


def test_a_shape_stands_for_the_answer() -> None:
    assert one([term(shape="exp(-2.5 x)", weight=2.0)], 0.2) == Scored(
        2 * math.exp(-0.5), {"a": 0.2}, {"a": math.exp(-0.5)}
    )
    assert failure(one([term(shape="1 / x")], 0.0)) == ("not_a_number", "a", "`1 / x` at x 0: division by zero")


def test_a_range_is_of_the_answer_and_not_of_its_shape() -> None:
    assert value(one([term(shape="10 x", range=[0.0, 1.0])], 0.5)) == 5.0


def test_a_gate_asks_what_any_term_answered_before_its_shape() -> None:
    terms = [
        term("main", shape="2 x", gate={"if": "errors.wer < 0.2 and errors < 1 and main > 0", "else": -1}),
        term("errors", weight=0.0, part="cer", shape="x + 100"),
    ]
    good: dict[str, float] = {"wer": 0.1, "cer": 0.5, "words": 9.0}
    assert one(terms, 0.5, good) == Scored(
        1.0,
        {"main": 0.5, "errors.wer": 0.1, "errors.cer": 0.5, "errors.words": 9.0},
        {"main": 1.0, "errors": 100.5},
    )
    assert value(one(terms, 0.5, good | {"wer": 0.2})) == -1
    assert value(one(terms, 0.5, good | {"cer": 1.0})) == -1
    assert value(one(terms, -0.5, good)) == -1


def test_a_gate_on_a_part_that_is_not_answered_is_a_failure() -> None:
    gated = [term("a", gate={"if": "b.wer < 1", "else": 0}), term("b", weight=0.0)]
    assert failure(one(gated, 1.0, {"cer": 1.0})) == (
        "wrong_shape",
        "a",
        "the gate asks for b.wer, which no answer has; there are a, b.cer, b",
    )
    assert failure(one(gated, 1.0, 2.0))[0] == "wrong_shape"
    assert failure(one([term(gate={"if": "1 / a < 1", "else": 0})], 0.0))[0] == "not_a_number"


def test_the_combination_has_a_gate_of_its_own() -> None:
    terms, gate = [term("a"), term("b", weight=3.0)], {"if": "a < 0.5", "else": -2}
    assert value(one(terms, 0.25, 1.0, gate=gate)) == 3.25
    assert value(one(terms, 0.5, 1.0, gate=gate)) == -2


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("sum", 2 * 0.5 + 3 * 0.25),
        ("product", 0.5**2 * 0.25**3),
        ("min", min(2 * 0.5, 3 * 0.25)),
        ("harmonic_mean", 5 / (2 / 0.5 + 3 / 0.25)),
    ],
)
def test_combinations_by_hand(kind: str, expected: float) -> None:
    terms = [term("a", weight=2.0), term("b", weight=3.0), term("logged", weight=0.0)]
    assert value(one(terms, 0.5, 0.25, -9.0, combine=kind)) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
    ("kind", "weight", "x", "expected"),
    [
        ("product", 2.0, -0.5, 0.25),
        ("product", 0.5, -0.5, "out_of_range"),
        ("product", -1.0, 0.0, "out_of_range"),
        ("product", 2.0, 1e200, "not_a_number"),
        ("harmonic_mean", 1.0, 0.0, 0.0),
        ("harmonic_mean", 1.0, -0.5, "out_of_range"),
        ("sum", 1000.0, 1e308, "not_a_number"),
    ],
)
def test_where_a_combination_has_no_value(kind: str, weight: float, x: float, expected: float | str) -> None:
    outcome = one([term("a", weight=weight), term("b")], x, 1.0, combine=kind)
    if isinstance(expected, float):
        assert value(outcome) == expected
    else:
        assert failure(outcome)[0] == expected


def test_where_no_term_counts_nothing_is_preferred() -> None:
    for kind in ("sum", "product", "min", "harmonic_mean"):
        assert value(one([term(schedule="linear(step, 1, 9)")], 0.5, combine=kind)) == 0.0


def test_a_weight_follows_its_schedule() -> None:
    terms = [term("a"), term("late", weight=-0.5, schedule="linear(step, 100, 200)")]
    assert [value(one(terms, 1.0, 1.0, step=step)) for step in (1, 100, 150, 200, 900)] == [1, 1, 0.75, 0.5, 0.5]
    assert effective_weights(terms, 150) == {"late": -0.25}
    with pytest.raises(EvaluationError):
        effective_weights([term(schedule="1 / (step - 3)")], 3)


def test_the_first_term_that_fails_in_the_order_of_the_recipe_fails_the_sample() -> None:
    terms = [term("a", shape="1 / x"), term("b", range=[0.0, 1.0]), term("c")]
    late = replace(LATE, term="c")
    assert failure(one(terms, 0.0, 5.0, late))[1] == "a"
    assert failure(one(terms, 1.0, 5.0, late))[1] == "b"
    assert one(terms, 1.0, 1.0, late) == late


def test_groups_are_normalized_by_hand() -> None:
    """Deviations -1, 0, 1 by a standard deviation of 1; the group after it has no spread."""
    scoring = ScoringConfig(normalize="terms")
    outcomes = combine([term(weight=2.0)], scoring, [[4.0, 5.0, 6.0, 7.0, 7.0, 7.0]], 3, 1)
    assert [value(outcome) for outcome in outcomes] == [-2, 0, 2, 0, 0, 0]
    assert outcomes[0] == Scored(-2.0, {"a": 4.0}, {"a": -1.0})
    totals = combine([term(weight=2.0)], replace(scoring, normalize="total"), [[4.0, 5.0, 6.0]], 3, 1)
    assert totals[0] == Scored(-1.0, {"a": 4.0})
    assert combine([term(weight=2.0)], scoring, [[4.0]], None, 1) == [Scored(8.0, {"a": 4.0})]


def test_what_cancels_is_no_spread() -> None:
    column: list[Answer] = [0.1 + 0.2 - 0.3, 0.0, 0.3 - 0.1 - 0.2]
    outcomes = combine([term()], ScoringConfig(normalize="terms"), [column], 3, 1)
    assert [value(outcome) for outcome in outcomes] == [0, 0, 0]


@pytest.mark.parametrize("largest", [1e308, 1e-320])
def test_no_number_is_too_large_or_small_to_normalize(largest: float) -> None:
    outcomes = combine([term()], ScoringConfig(normalize="terms"), [[largest, -largest]], 2, 1)
    expected = [math.sqrt(0.5), -math.sqrt(0.5)] if largest > 1 else [0.0, 0.0]
    assert [value(outcome) for outcome in outcomes] == pytest.approx(expected)


NUMBERS = st.floats(-100, 100).map(lambda x: round(x, 3))
WEIGHTS = st.floats(-10, 10).map(lambda x: round(x, 3))


def columns(cells: Any = NUMBERS, groups: int = 3) -> Any:
    """Answers of one to three terms on some groups."""
    column = st.lists(cells, min_size=GROUP * groups, max_size=GROUP * groups)
    return st.lists(column, min_size=1, max_size=3)


@given(columns(), st.lists(WEIGHTS, min_size=3, max_size=3))
def test_a_sum_is_the_dot_product(answers: list[list[float]], weights: list[float]) -> None:
    terms = [term(f"t{i}", weight=weights[i]) for i in range(len(answers))]
    expected = np.array(weights[: len(answers)]) @ np.array(answers)
    outcomes = combine(terms, ScoringConfig(), answers, GROUP, 1)
    np.testing.assert_allclose([value(outcome) for outcome in outcomes], expected, rtol=1e-12, atol=1e-9)


@given(columns())
def test_normalized_terms_have_mean_0_and_std_1_in_each_group(answers: list[list[float]]) -> None:
    terms = [term(f"t{i}") for i in range(len(answers))]
    outcomes = combine(terms, ScoringConfig(normalize="terms"), answers, GROUP, 1)
    for number, column in enumerate(answers):
        shaped = np.array([outcome.shaped[f"t{number}"] for outcome in outcomes if isinstance(outcome, Scored)])
        for raw, group in zip(np.reshape(column, (-1, GROUP)), shaped.reshape(-1, GROUP), strict=True):
            if np.ptp(raw) == 0:
                assert not group.any()
            else:
                np.testing.assert_allclose([group.mean(), group.std(ddof=1)], [0, 1], atol=1e-9)
                np.testing.assert_allclose(group, (raw - raw.mean()) / raw.std(ddof=1), atol=1e-6)


@given(columns())
def test_a_normalized_term_does_not_care_for_its_unit(answers: list[list[float]]) -> None:
    terms, scoring = [term(f"t{i}", weight=1.0 + i) for i in range(len(answers))], ScoringConfig(normalize="terms")
    scaled = [[1000 * x for x in answers[0]], *answers[1:]]
    before, after = (combine(terms, scoring, each, GROUP, 1) for each in (answers, scaled))
    np.testing.assert_allclose([value(x) for x in after], [value(x) for x in before], atol=1e-6)


@given(
    columns(NUMBERS | st.just(LATE)),
    st.sampled_from(["none", "terms", "total"]),
    st.sampled_from(["sum", "min"]),
    st.booleans(),
)
def test_a_failed_sample_is_as_if_it_were_not_there(
    answers: list[list[Answer]], normalize: str, kind: str, gated: bool
) -> None:
    """Law 2: the others get what they get in a group of the others alone."""
    gate = {"if": "t0 < 50", "else": 0} if gated else {}
    terms = [term(f"t{i}", shape="x / 2", gate=gate) for i in range(len(answers))]
    scoring = ScoringConfig(combine=kind, normalize=normalize, gate=gate)
    outcomes = combine(terms, scoring, answers, GROUP, 1)
    samples = list(zip(*answers, strict=True))
    failed = [LATE in sample for sample in samples]
    assert [isinstance(outcome, Failed) for outcome in outcomes] == failed
    for start in range(0, len(samples), GROUP):
        alone = [sample for sample in samples[start : start + GROUP] if LATE not in sample]
        here = [outcome for outcome in outcomes[start : start + GROUP] if isinstance(outcome, Scored)]
        assert here == (combine(terms, scoring, list(zip(*alone, strict=True)), len(alone), 1) if alone else [])


@given(st.lists(st.floats(0, 100), min_size=1, max_size=5))
def test_a_harmonic_mean_lies_between_the_least_and_the_most(numbers: list[float]) -> None:
    assume(all(x == 0 or x > 1e-6 for x in numbers))
    terms = [term(f"t{i}") for i in range(len(numbers))]
    mean = value(one(terms, *numbers, combine="harmonic_mean"))
    assert min(numbers) * (1 - 1e-12) <= mean <= max(numbers) * (1 + 1e-12)


ODD = st.floats() | st.dictionaries(st.text(max_size=2), st.floats(), min_size=1, max_size=2) | st.just(LATE)


@given(
    columns(ODD, groups=1),
    st.sampled_from(["sum", "product", "min", "harmonic_mean"]),
    st.sampled_from(["none", "terms", "total"]),
    st.sampled_from(["", "1 / x", "exp(x)", "x * x"]),
    st.floats(-1000, 1000),
)
def test_only_finite_numbers_are_ever_scored(
    answers: list[list[Answer]], kind: str, normalize: str, shape: str, weight: float
) -> None:
    terms = [term(f"t{i}", shape=shape, weight=weight) for i in range(len(answers))]
    for outcome in combine(terms, ScoringConfig(combine=kind, normalize=normalize), answers, GROUP, 1):
        if isinstance(outcome, Scored):
            assert all(map(math.isfinite, (outcome.value, *outcome.shaped.values())))
        else:
            assert outcome.kind in ("not_a_number", "out_of_range", "timeout")


def test_a_term_is_named_by_its_name_its_function_or_its_server() -> None:
    servers = [
        RewardConfig(url="https://host/v1/score"),
        RewardConfig(url="http://127.0.0.1:80/judge/?k=a/b"),
        RewardConfig(url="http://host"),
        RewardConfig(url="http://host/score", name="own"),
    ]
    outcome = one([term("a"), *servers], 1.0, 1.0, 1.0, 1.0, 1.0)
    assert isinstance(outcome, Scored)
    assert list(outcome.parts) == ["a", "score", "judge", "host", "own"]
