"""Tables and times as the commands that only read print them."""

import sys
from collections.abc import Iterable, Sequence
from io import StringIO

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

_WIDTH = 200
"""Columns where there is no terminal to ask: wide enough that a line stays a line."""


def show(what: RenderableType) -> None:
    """Print to standard output, as wide as the terminal."""
    if sys.stdout.isatty():
        Console().print(what, highlight=False)
        return
    text = StringIO()
    Console(file=text, width=_WIDTH, color_system=None).print(what, highlight=False)
    print("\n".join(line.rstrip() for line in text.getvalue().rstrip().splitlines()))


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[str] = ()) -> Table:
    """A table of plain text; the columns in `right` are aligned there. Nothing in a cell is taken as markup."""
    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for number, heading in enumerate(headings):
        grid.add_column(heading, justify="right" if heading in right else "left", overflow="fold", no_wrap=number == 0)
    for row in rows:
        grid.add_row(*(Text(str(cell)) for cell in row))
    return grid


def lasting(seconds: float | None) -> str:
    """Seconds in the two largest units that fit: `42 s`, `11 min 50 s`, `3 h 5 min`, `2 d 4 h`."""
    if seconds is None:
        return ""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    units = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    first = next(i for i, (_, size) in enumerate(units) if whole >= size)
    (large, size), (small, part) = units[first], units[first + 1]
    rest = whole % size // part
    return f"{whole // size} {large}" + (f" {rest} {small}" if rest else "")
