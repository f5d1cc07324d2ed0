"""Expressions: values by hand and by Python's own arithmetic, and what is said of texts that are none."""

import math
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_platform.recipe.expressions import MAX_DEPTH, MAX_LENGTH, EvaluationError, ExpressionError, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("exp(-2.5 x)", math.exp(-1.25)),
        ("1 - tanh(3 x)", 1 - math.tanh(1.5)),
        ("2 (x + 1)", 3.0),
        ("1 / 2 x", 1.0),  # as 1 / (2 x)
        ("1 / 2 * x", 0.25),
        ("-2 x", -1.0),
        ("3 - - x", 3.5),
        ("2e1x", 10.0),
        ("2 abs(x - 1) x", None),  # only a number stands before what it multiplies
        ("max(x, 2, 1) - min(x, y)", 2.25),
        ("clip(x, 0.6, 1)", 0.6),
        ("clip(x, 0, 0.4)", 0.4),
        ("linear(x, 0, 2)", 0.25),
        ("linear(x, 2, 0)", 0.75),
        ("linear(x, 0.6, 2)", 0.0),
        ("linear(x, 0.1, 0.2)", 1.0),
        ("errors.wer_2 - x", 0.25),
        ("x < 1 and not y > 0 or y <= -0.25", True),
        ("not (x < 1 and (y < 0 or y > 1))", False),
        ("(x + 1) > (y)", True),
        ("min < x", True),  # the name of a function is a name where no parenthesis follows
        ("andy + x", 0.75),
    ],
)
def test_values_by_hand(text: str, expected: float | None) -> None:
    values = {"x": 0.5, "y": -0.25, "errors.wer_2": 0.75, "min": 0.0, "andy": 0.25}
    if expected is None:
        with pytest.raises(ExpressionError):
            parse(text)
        return
    assert parse(text).evaluate(values) == pytest.approx(expected, rel=1e-15)
    assert parse(text).is_condition is isinstance(expected, bool)


def test_an_expression_knows_its_text_and_the_names_it_uses() -> None:
    expression = parse("min(errors.wer, x) < exp(2 x)")
    assert (expression.text, expression.names) == ("min(errors.wer, x) < exp(2 x)", {"errors.wer", "x"})
    assert parse("min(errors.wer, x) < exp(2 x)") is expression, "read once"


NUMBERS = st.recursive(
    st.sampled_from(["x", "y", "0", "1", "0.25", "3", "1e2", "7.5e-1"]),
    lambda inner: (
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(" ".join)
        | inner.map("({})".format)
        | inner.map("-{}".format)
        | inner.map("tanh({})".format)
        | inner.map("exp(-abs({}))".format)
        | st.tuples(inner, inner).map(lambda pair: f"min({pair[0]}, {pair[1]}, 2)")
        | st.tuples(inner, inner).map(lambda pair: f"max({pair[0]}, {pair[1]})")
    ),
    max_leaves=8,
)
CONDITIONS = st.recursive(
    st.tuples(NUMBERS, st.sampled_from(["<", "<=", ">", ">="]), NUMBERS).map(" ".join),
    lambda inner: (
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(" ".join)
        | inner.map("({})".format)
        | inner.map("not ({})".format)
        | inner.map("not {}".format)
    ),
    max_leaves=5,
)
PYTHON = {"exp": math.exp, "tanh": math.tanh, "abs": abs, "min": min, "max": max}


@given(NUMBERS | CONDITIONS, st.floats(-10, 10), st.floats(-10, 10))
def test_arithmetic_and_logic_are_those_of_python(text: str, x: float, y: float) -> None:
    """Written without the product that a number makes with what follows it, the grammar is a part of Python's."""
    if len(text) > MAX_LENGTH:
        return
    try:
        expected = float(eval(text, PYTHON, {"x": x, "y": y}))
    except ZeroDivisionError:
        with pytest.raises((EvaluationError, ExpressionError), match="division by zero"):
            parse(text).evaluate({"x": x, "y": y})
        return
    assert parse(text).evaluate({"x": x, "y": y}) == expected


@given(st.floats(-1e6, 1e6), st.floats(-100, 100), st.floats(-100, 100))
def test_clip_and_linear_are_those_of_numpy(x: float, low: float, high: float) -> None:
    values = {"x": x, "low": low, "high": high}
    if low <= high:
        assert parse("clip(x, low, high)").evaluate(values) == np.clip(x, low, high)
    if abs(high - low) > 1e-6:
        ends = ([low, high], [0.0, 1.0]) if low < high else ([high, low], [1.0, 0.0])
        assert parse("linear(x, low, high)").evaluate(values) == pytest.approx(np.interp(x, *ends), abs=1e-9)


PIECES = st.sampled_from(
    [*"+-*/(),<>.^x20", "<=", "1e308", "a.b", *["and", "or", "not", "exp", "tanh", "min", "clip", "linear"]],
)


@given(st.text() | st.lists(PIECES, max_size=60).map(" ".join) | st.lists(PIECES, max_size=60).map("".join), st.data())
def test_any_text_is_an_expression_or_a_line_of_what_is_wrong(text: str, data: st.DataObject) -> None:
    try:
        expression = parse(text)
    except ExpressionError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017
        return
    values = {name: data.draw(st.floats()) for name in expression.names}
    with suppress(EvaluationError):
        assert math.isfinite(expression.evaluate(values))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "at the end: expected a number, a name, a function or ("),
        ("exp(", "at the end: expected a number, a name, a function or ("),
        ("exp(x", "at the end: expected an operator, a comma or )"),
        ("(x, 1)", "character 3: expected an operator or ), found ,"),
        ("x y", "character 3: expected an operator or the end, found y"),
        ("x < y < 1", "character 7: expected an operator or the end, found <"),
        ("x ** 2", "character 4: expected a number, a name, a function or (, found *"),
        ("x = 2", "character 3: '=' is no sign; allowed + - * / ( ) , < <= > >="),
        ("1 and x < 2", "character 1: expected a condition, found a number"),
        ("x < 2 and 1", "character 11: expected a condition, found a number"),
        ("not x", "character 5: expected a condition, found a number"),
        ("1 + (x < 2)", "character 6: expected a number, found a condition"),
        ("2 (x < 2)", "character 4: expected a number, found a condition"),
        ("exp(x < 2)", "character 5: expected a number, found a condition"),
        ("(x < 2) > 1", "character 2: expected a number, found a condition"),
        ("exp(x, 2)", "character 1: exp takes 1, found 2"),
        ("1 + min(x)", "character 5: min takes 2 or more, found 1"),
        ("1e999", "character 1: 1e999 is beyond the range of a float"),
        ("clip(x, 1, 0)", "character 1: clip from 1 to 0: the lower bound comes first"),
        ("linear(x, 2, 4 / 2)", "character 1: linear from 2 to 2: the ends must differ"),
        ("x" * (MAX_LENGTH + 1), f"{MAX_LENGTH + 1} characters; allowed at most {MAX_LENGTH}"),
        ("(" * 400 + "x", f"more than {MAX_DEPTH} parentheses inside each other"),
        ("exp(" * 100, f"more than {MAX_DEPTH} parentheses inside each other"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, said: str) -> None:
    with pytest.raises(ExpressionError) as raised:
        parse(text)
    assert str(raised.value) == said


def test_long_texts_without_depth_are_read() -> None:
    assert parse("1" + " + 1" * 124).evaluate({}) == 125
    assert parse("-" * 498 + "x").evaluate({"x": 2.0}) == 2
    assert parse("not " * 99 + "x < 1").evaluate({"x": 2.0}) is True


@pytest.mark.parametrize(
    ("text", "x"),
    [
        ("1 / x", 0.0),
        ("exp(x)", 1e3),
        ("x * x", 1e200),
        ("1 / (x * x)", 1e200),  # 0 were the infinity between let pass
        ("10 x", 1e308),
        ("x + x < 1", 1e308),
        ("abs(x)", math.nan),
        ("tanh(x)", math.inf),
        ("clip(1, x, 0)", 2.0),
        ("linear(1, x, 2)", 2.0),
        ("linear(x, -x, x)", 1e308),
    ],
)
def test_what_has_no_finite_value_is_one_named_error(text: str, x: float) -> None:
    with pytest.raises(EvaluationError):
        parse(text).evaluate({"x": x})
