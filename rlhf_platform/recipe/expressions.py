"""The expressions of a recipe, which shape a reward, schedule its weight or gate it: grammar, parser, value.

    expression  = conjunction { "or" conjunction }
    conjunction = negation { "and" negation }
    negation    = { "not" } comparison
    comparison  = sum [ ( "<" | "<=" | ">" | ">=" ) sum ]
    sum         = product { ( "+" | "-" ) product }
    product     = signed { ( "*" | "/" ) signed }
    signed      = { "-" } factor
    factor      = number [ operand ] | operand
    operand     = name | function "(" expression { "," expression } ")" | "(" expression ")"
    function    = "exp" | "tanh" | "abs" | "min" | "max" | "clip" | "linear"
    number      = digits [ "." digits ] [ ( "e" | "E" ) [ "+" | "-" ] digits ]
    name        = word { "." word }          letters, digits and _, the first no digit

A number and the operand behind it are a product that binds more tightly than * and /: `1 / 2 x` is 1 / (2 x).
An expression is a number, or a condition: arithmetic takes numbers, `and`, `or` and `not` take conditions.
"""

import difflib
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

MAX_LENGTH = 500
"""Characters of an expression."""
MAX_DEPTH = 20
"""Parentheses inside each other, so that no text exhausts the stack."""


class ExpressionError(ValueError):
    """A text that is no expression. The message is one line: where, and what was expected."""


class EvaluationError(ArithmeticError):
    """An expression that has no finite value for these numbers: division by zero, overflow, bounds out of order."""


_Values = Mapping[str, float]
_Run = Callable[[_Values], float]


@dataclass(frozen=True)
class Expression:
    """A text that was read by `parse`."""

    text: str
    names: frozenset[str]
    """Whose numbers it needs."""
    is_condition: bool
    """Whether it is true or false rather than a number."""
    _run: _Run = field(repr=False, compare=False)

    def evaluate(self, values: _Values) -> float:
        """Its finite value, True or False for a condition. `values`: a number for each of `names`.

        Raises `EvaluationError` when there is no such value, `KeyError` for a name without a number.
        """
        return _evaluate(self._run, values)


@lru_cache(maxsize=1024)
def parse(text: str) -> Expression:
    """The expression that `text` is. Raises `ExpressionError`."""
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"{len(text)} characters; allowed at most {MAX_LENGTH}")
    node = _Parser(text).whole()
    return Expression(text, node.names, node.is_condition, node.run)


def _evaluate(run: _Run, values: _Values) -> float:
    try:
        return run(values)
    except ZeroDivisionError:
        raise EvaluationError("division by zero") from None
    except OverflowError:
        raise EvaluationError("beyond the range of a float") from None


def _finite(value: float) -> float:
    if math.isfinite(value):
        return value
    raise OverflowError


def _clip(x: float, low: float, high: float) -> float:
    if low > high:
        raise EvaluationError(f"clip from {low:g} to {high:g}: the lower bound comes first")
    return min(max(x, low), high)


def _linear(x: float, low: float, high: float) -> float:
    """0 at `low`, 1 at `high`, straight between, and no further."""
    if low == high:
        raise EvaluationError(f"linear from {low:g} to {high:g}: the ends must differ")
    return min(max((x - low) / _finite(high - low), 0.0), 1.0)


_MANY = range(2, MAX_LENGTH)
_FUNCTIONS: dict[str, tuple[Callable[..., float], range]] = {
    "exp": (math.exp, range(1, 2)),
    "tanh": (math.tanh, range(1, 2)),
    "abs": (abs, range(1, 2)),
    "min": (min, _MANY),
    "max": (max, _MANY),
    "clip": (_clip, range(3, 4)),
    "linear": (_linear, range(3, 4)),
}
"""Each function, and how many arguments it takes."""
_ARITHMETIC = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
_COMPARISONS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_CONNECTIVES = {"and": all, "or": any}

_TOKEN = re.compile(
    r"(?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<sign><=|>=|[-+*/(),<>]|(?:and|or|not)(?![\w.]))"
    r"|(?P<word>[^\W\d]\w*(?:\.\w+)*)"
)


@dataclass(frozen=True)
class _Token:
    kind: str
    """`number`, `sign`, `word`, or `end`."""
    text: str
    place: int


@dataclass(frozen=True)
class _Node:
    """A part of an expression that was read."""

    run: _Run
    place: int
    names: frozenset[str] = frozenset()
    is_condition: bool = False


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    place = 0
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found:
            tokens.append(_Token(str(found.lastgroup), found[0], place))
            place = found.end()
        elif text[place].isspace():
            place += 1
        else:
            raise ExpressionError(f"character {place + 1}: {text[place]!r} is no sign; allowed + - * / ( ) , < <= > >=")
    return [*tokens, _Token("end", "", len(text))]


class _Parser:
    """A method for each rule of the grammar, which reads on from the next token."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._next = 0
        self._depth = 0

    def whole(self) -> _Node:
        node = self._expression()
        if self._token.kind != "end":
            raise self._unexpected("an operator or the end")
        return node

    def _expression(self) -> _Node:
        return self._connected("or", lambda: self._connected("and", self._negation))

    def _connected(self, word: str, read: Callable[[], _Node]) -> _Node:
        nodes = [read()]
        while self._take(word):
            nodes.append(read())
        if len(nodes) == 1:
            return nodes[0]
        connect, runs = _CONNECTIVES[word], [_condition(node) for node in nodes]
        return _joined(nodes, lambda values: connect(run(values) for run in runs), is_condition=True)

    def _negation(self) -> _Node:
        negations = 0
        while self._take("not"):
            negations += 1
        node = self._comparison()
        if not negations:
            return node
        run, even = _condition(node), negations % 2 == 0
        return _joined([node], lambda values: bool(run(values)) == even, is_condition=True)

    def _comparison(self) -> _Node:
        left = self._sum()
        sign = self._take(*_COMPARISONS)
        if not sign:
            return left
        right = self._sum()
        compare, a, b = _COMPARISONS[sign], _number(left), _number(right)
        return _joined([left, right], lambda values: compare(a(values), b(values)), is_condition=True)

    def _sum(self) -> _Node:
        return self._calculated(("+", "-"), lambda: self._calculated(("*", "/"), self._signed))

    def _calculated(self, signs: Sequence[str], read: Callable[[], _Node]) -> _Node:
        nodes, steps = [read()], []
        while sign := self._take(*signs):
            nodes.append(read())
            steps.append((_ARITHMETIC[sign], _number(nodes[-1])))
        if not steps:
            return nodes[0]
        first = _number(nodes[0])

        def run(values: _Values) -> float:
            value = first(values)
            for calculate, operand in steps:
                value = calculate(value, operand(values))
            return _finite(value)  # what is not finite stays so through the steps

        return _joined(nodes, run)

    def _signed(self) -> _Node:
        negative = False
        while self._take("-"):
            negative = not negative
        node = self._factor()
        if not negative:
            return node
        run = _number(node)
        return _joined([node], lambda values: -run(values))

    def _factor(self) -> _Node:
        token = self._token
        if token.kind != "number":
            return self._operand()
        self._next += 1
        number = float(token.text)
        if not math.isfinite(number):
            raise ExpressionError(f"character {token.place + 1}: {token.text} is beyond the range of a float")
        factor = _Node(lambda _: number, token.place)
        if self._token.kind != "word" and self._token.text != "(":
            return factor
        operand = self._operand()
        run = _number(operand)
        return _joined([factor, operand], lambda values: _finite(number * run(values)))

    def _operand(self) -> _Node:
        token = self._token
        if self._take("("):
            return self._inside()[0]
        if token.kind != "word":
            raise self._unexpected("a number, a name, a function or (")
        self._next += 1
        if self._take("("):
            return self._call(token)
        name = token.text
        return _Node(lambda values: _finite(values[name]), token.place, frozenset({name}))

    def _call(self, token: _Token) -> _Node:
        where = f"character {token.place + 1}"
        if token.text not in _FUNCTIONS:
            near = difflib.get_close_matches(token.text, _FUNCTIONS, n=1)
            allowed = f"allowed {', '.join(_FUNCTIONS)}; a product is written {token.text} * (...)"
            hint = f"did you mean {near[0]}?" if near else allowed
            raise ExpressionError(f"{where}: no function is named {token.text}; {hint}")
        compute, takes = _FUNCTIONS[token.text]
        nodes = self._inside(many=True)
        if len(nodes) not in takes:
            count = f"{takes[0]}{' or more' if len(takes) > 1 else ''}"
            raise ExpressionError(f"{where}: {token.text} takes {count}, found {len(nodes)}")
        runs = [_number(node) for node in nodes]
        if not any(node.names for node in nodes[1:]):
            try:  # bounds that are wrong for every sample are told now
                _evaluate(lambda values: compute(0.0, *(run(values) for run in runs[1:])), {})
            except EvaluationError as error:
                raise ExpressionError(f"{where}: {error}") from None
        return _joined(nodes, lambda values: compute(*[run(values) for run in runs]), token.place)

    def _inside(self, many: bool = False) -> list[_Node]:
        """What stands between parentheses, the first of which was read."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ExpressionError(f"more than {MAX_DEPTH} parentheses inside each other")
        nodes = [self._expression()]
        while many and self._take(","):
            nodes.append(self._expression())
        if not self._take(")"):
            raise self._unexpected(f"an operator{', a comma' if many else ''} or )")
        self._depth -= 1
        return nodes

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, *texts: str) -> str:
        """The next token, if it is one of `texts`; else "", and it stays."""
        text = self._token.text
        if text not in texts:
            return ""
        self._next += 1
        return text

    def _unexpected(self, expected: str) -> ExpressionError:
        token = self._token
        where = "at the end" if token.kind == "end" else f"character {token.place + 1}"
        return ExpressionError(f"{where}: expected {expected}{f', found {token.text}' if token.text else ''}")


def _joined(nodes: Sequence[_Node], run: _Run, place: int | None = None, *, is_condition: bool = False) -> _Node:
    names = frozenset().union(*(node.names for node in nodes))
    return _Node(run, nodes[0].place if place is None else place, names, is_condition)


def _number(node: _Node) -> _Run:
    if node.is_condition:
        raise ExpressionError(f"character {node.place + 1}: expected a number, found a condition")
    return node.run


def _condition(node: _Node) -> _Run:
    if not node.is_condition:
        raise ExpressionError(f"character {node.place + 1}: expected a condition, found a number")
    return node.run
