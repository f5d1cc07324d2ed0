"""From the answers of all terms to one outcome per sample (docs/reward_algebra.md).

Columns of cells go through one step after the other. A cell is a sample's number, or why it has none.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import compress
from operator import mul, truediv
from typing import Any

from rewards.answers import Answer
from rlhf_platform.recipe.expressions import EvaluationError, Expression, parse
from rlhf_platform.recipe.rewards import reward_name, weight_at
from rlhf_platform.recipe.schema import RewardConfig, ScoringConfig
from rlhf_platform.types import Failed, Outcome, Scored

_LARGEST = sys.float_info.max
_Cell = float | Failed
_Column = Sequence[_Cell]


def combine(
    terms: Sequence[RewardConfig],
    scoring: ScoringConfig,
    answers: Sequence[Sequence[Answer]],
    group_size: int | None,
    step: int,
) -> list[Outcome]:
    """The outcome of each sample, from `answers` (terms, samples); samples of a group follow each other.

    In this order: the number of each answer, its range, its shape; the gates of the terms; their normalisation in the
    group; weights and combination; its gate; its normalisation. The first term that fails, in the order of the recipe,
    fails the sample (law 2), which then counts in no mean and no spread.

    `group_size`: None where there are no groups, as in an evaluation; nothing is normalised then. `step`: number of
    the RL step, from 1. Raises `EvaluationError` for a schedule without a value at `step`, which `recipe.validate`
    refuses before.
    """
    if not terms:
        return []
    normalize, size = (scoring.normalize, group_size) if group_size else ("none", 0)
    names, gates = [reward_name(term) for term in terms], [term.gate for term in terms]
    parts = _by_name(names, answers)
    numbers = [_numbers(*each) for each in zip(terms, names, answers, strict=True)]
    columns = _agreed([_shaped(*each) for each in zip(terms, names, numbers, strict=True)])
    asked = []
    if any(gates) or scoring.gate:
        asked = [known | row for known, row in zip(parts, _by_name(names, numbers), strict=True)]
        columns = _agreed([_gated(*each, asked) for each in zip(gates, names, columns, strict=True)])
    if normalize == "terms":
        columns = [_normalized(column, size) for column in columns]
    totals = _combined(scoring.combine, names, [weight_at(term, step) for term in terms], columns)
    totals = _gated(scoring.gate, "", totals, asked)
    if normalize == "total":
        totals = _normalized(totals, size)
    changed = [bool(term.shape or term.gate or normalize == "terms") for term in terms]
    shaped = _by_name(list(compress(names, changed)), list(compress(columns, changed))) or [{}] * len(totals)
    return [
        total if isinstance(total, Failed) else _scored(total, answered, changes)
        for total, answered, changes in zip(totals, parts, shaped, strict=True)
    ]


def effective_weights(terms: Sequence[RewardConfig], step: int) -> dict[str, float]:
    """The weight in an RL step, numbered from 1, of each term whose weight a schedule changes."""
    return {reward_name(term): weight_at(term, step) for term in terms if term.schedule}


def _numbers(term: RewardConfig, name: str, answers: Sequence[Answer]) -> _Column:
    low, high = term.range or (-_LARGEST, _LARGEST)
    low, high = max(low, -_LARGEST), min(high, _LARGEST)
    return [
        # Nearly all are plain numbers in their range; one comparison finds what is not finite too.
        answer if type(answer) is float and low <= answer <= high and not term.part else _number(term, name, answer)
        for answer in answers
    ]


def _number(term: RewardConfig, name: str, answer: Answer) -> _Cell:
    if isinstance(answer, Failed):
        return answer
    parts = answer if isinstance(answer, dict) else {}
    if term.part and term.part not in parts:
        message = f"the answer has no part {term.part}; it {'has ' + ', '.join(parts) if parts else 'is a number'}"
        return Failed("wrong_shape", message, name)
    number = parts[term.part] if term.part else sum(parts.values()) if isinstance(answer, dict) else float(answer)
    if not math.isfinite(number):
        return Failed("not_a_number", f"the answer amounts to {number}: a finite number is needed", name)
    if term.range and not term.range[0] <= number <= term.range[1]:
        message = f"{number:g} is not in the range from {term.range[0]:g} to {term.range[1]:g}"
        return Failed("out_of_range", message, name)
    return number


def _shaped(term: RewardConfig, name: str, column: _Column) -> _Column:
    if not term.shape:
        return column
    shape = parse(term.shape)
    return [cell if isinstance(cell, Failed) else _value(shape, {"x": cell}, name) for cell in column]


def _value(expression: Expression, numbers: Mapping[str, float], term: str) -> _Cell:
    try:
        return expression.evaluate(numbers)
    except EvaluationError as error:
        where = ", ".join(f"{name} {numbers[name]:g}" for name in sorted(expression.names))
        return Failed("not_a_number", f"`{expression.text}` at {where}: {error}", term)


def _agreed(columns: Sequence[_Column]) -> Sequence[_Column]:
    """The columns, with a sample that failed in one of them failed in all: as its first term did."""
    failed: dict[int, Failed] = {}
    for column in columns:
        for i, cell in enumerate(column):
            if isinstance(cell, Failed):
                failed.setdefault(i, cell)
    return [[failed.get(i, cell) for i, cell in enumerate(column)] for column in columns] if failed else columns


def _gated(gate: Mapping[str, Any], term: str, column: _Column, asked: Sequence[Mapping[str, float]]) -> _Column:
    if not gate:
        return column
    condition, otherwise = parse(gate["if"]), float(gate["else"])

    def through(cell: _Cell, numbers: Mapping[str, float]) -> _Cell:
        if isinstance(cell, Failed):
            return cell
        if missing := sorted(condition.names - numbers.keys()):
            said = f"the gate asks for {missing[0]}, which no answer has; there are {', '.join(numbers)}"
            return Failed("wrong_shape", said, term)
        holds = _value(condition, numbers, term)
        return holds if isinstance(holds, Failed) else cell if holds else otherwise

    return [through(cell, numbers) for cell, numbers in zip(column, asked, strict=True)]


def _normalized(column: _Column, group_size: int) -> _Column:
    """Each number by the mean and spread of those in its group; failures stay, and count in neither."""
    cells: list[_Cell] = []
    for start in range(0, len(column), group_size):
        group = column[start : start + group_size]
        numbers = iter(_standardized([cell for cell in group if not isinstance(cell, Failed)]))
        cells += [cell if isinstance(cell, Failed) else next(numbers) for cell in group]
    return cells


def _standardized(numbers: Sequence[float]) -> list[float]:
    """(number - mean) / standard deviation (n - 1), as `rlhf_platform.algorithms.groups`; all 0 without a spread."""
    largest = max(map(abs, numbers), default=0.0)
    if len(numbers) < 2 or largest == 0.0:
        return [0.0] * len(numbers)
    share, exponent = math.frexp(largest)
    scaled = [math.ldexp(number, -exponent) for number in numbers]  # exact, and no sum or square overflows
    mean = math.fsum(scaled) / len(scaled)
    std = math.hypot(*(number - mean for number in scaled)) / math.sqrt(len(scaled) - 1)
    # Numbers that are equal up to rounding have none: what cancels, as 0.1 + 0.2 - 0.3, must not be blown up.
    has_spread = std > share * (1e-6 + 1e-9 / largest)
    return [(number - mean) / std if has_spread else 0.0 for number in scaled]


def _combined(kind: str, names: Sequence[str], weights: Sequence[float], columns: Sequence[_Column]) -> _Column:
    """The combination of each sample's terms. Those of weight 0 do not count; where none does, it is 0."""
    if not any(weights):
        return [cell if isinstance(cell, Failed) else 0.0 for cell in columns[0]]
    chosen, factors = list(compress(names, weights)), [weight for weight in weights if weight]
    compute = _COMBINATIONS[kind]
    rows: Any = zip(*compress(columns, weights), strict=True)
    cells: list[_Cell] = []
    for row in rows:
        if isinstance(row[0], Failed):
            cells.append(row[0])
            continue
        try:
            total = compute(factors, row)
            failure = "" if math.isfinite(total) else "not_a_number"
        except OverflowError:
            failure = "not_a_number"
        except (ValueError, ZeroDivisionError):
            failure = "out_of_range"
        cells.append(_without_total(failure, kind, chosen, factors, row) if failure else total)
    return cells


def _without_total(
    failure: str, kind: str, names: Sequence[str], weights: Sequence[float], row: Sequence[float]
) -> Failed:
    why = "not defined" if failure == "out_of_range" else "beyond the range of a float"
    said = ", ".join(f"{name} {x:g} (weight {weight:g})" for name, x, weight in zip(names, row, weights, strict=True))
    return Failed(failure, f"the {kind} of {said} is {why}")


def _sum(weights: Sequence[float], row: Sequence[float]) -> float:
    return sum(map(mul, weights, row))


def _product(weights: Sequence[float], row: Sequence[float]) -> float:
    return math.prod(map(math.pow, row, weights))  # pow raises ValueError for a root of a negative number


def _min(weights: Sequence[float], row: Sequence[float]) -> float:
    return min(map(mul, weights, row))


def _harmonic_mean(weights: Sequence[float], row: Sequence[float]) -> float:
    lowest = min(row)
    if lowest < 0:
        raise ValueError
    return sum(weights) / sum(map(truediv, weights, row)) if lowest else 0.0


_COMBINATIONS: Mapping[str, Callable[[Sequence[float], Sequence[float]], float]] = {
    "sum": _sum,
    "product": _product,
    "min": _min,
    "harmonic_mean": _harmonic_mean,
}


def _by_name(names: Sequence[str], columns: Sequence[Sequence[Answer]]) -> list[dict[str, float]]:
    """The numbers of each sample: `term`, or `term.part` of a dict. Empty without columns."""
    rows: list[dict[str, float]] = [{} for _ in columns[0]] if columns else []
    for name, column in zip(names, columns, strict=True):
        for row, answer in zip(rows, column, strict=True):
            if isinstance(answer, dict):
                row.update({f"{name}.{part}": number for part, number in answer.items()})
            elif not isinstance(answer, Failed):
                row[name] = answer
    return rows


def _scored(value: float, parts: dict[str, float], shaped: dict[str, float]) -> Scored:
    """A record, without the `__init__` of a frozen class, which takes longer than all else here."""
    scored = object.__new__(Scored)
    known = scored.__dict__
    known["value"], known["parts"], known["shaped"] = value, parts, shaped
    return scored
