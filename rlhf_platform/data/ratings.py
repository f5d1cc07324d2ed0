"""What people said of blind pairs: which side is better, or how good each sample is from 1 to 5.

Votes are a CSV file with the columns pair, rater and answer (a, b or tie); scores have sample (`0001_a`), rater and
score. Both may have a reason.
"""

import csv
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from statistics import fmean

from rlhf_platform.data.blind_key import BlindPair, Key
from rlhf_platform.data.manifest import raise_if_any
from rlhf_platform.data.pairs import Origin, Pair
from rlhf_platform.errors import DataError

VOTES = ("pair", "rater", "answer")
SCORES = ("sample", "rater", "score")
_LEADS = {"a": 1.0, "tie": 0.0, "b": -1.0}
_LEAST, _MOST = 1.0, 5.0


@dataclass(frozen=True)
class Rating:
    """One rater's word on one thing."""

    item: str
    """A pair, or a sample."""
    rater: str
    value: float
    """Of a pair: 1 a is better, 0 tie, -1 b is better. Of a sample: 1 to 5."""
    reason: str = ""


@dataclass(frozen=True)
class Ratings:
    """All that was rated in one way."""

    columns: tuple[str, str, str]
    """`VOTES` or `SCORES`."""
    ratings: tuple[Rating, ...]

    @property
    def raters(self) -> list[str]:
        return sorted({rating.rater for rating in self.ratings})

    def by(self, rater: str) -> "Ratings":
        """Those of one rater."""
        return replace(self, ratings=tuple(rating for rating in self.ratings if rating.rater == rater))


@dataclass(frozen=True)
class Verdict:
    """What the raters of a pair said together."""

    pair: BlindPair
    lead: float
    """By how much a is better; below 0 b is; 0 is a tie."""
    raters: tuple[str, ...]
    reason: str


def read_ratings(paths: Sequence[Path], key: Key) -> Ratings:
    """The ratings of all files; a row whose answer is left blank was not rated.

    Raises one `DataError` for a file, that counts the bad rows and names the first ten, or says that nothing was rated.
    """
    files = {path: _read(path) for path in paths}
    columns, found = files[paths[0]].columns, dict[tuple[str, str], Rating]()
    items = key if columns == VOTES else {f"{name}_{side}" for name in key for side in "ab"}
    for path, file in files.items():
        if file.columns != columns:
            raise DataError(f"{path}: columns are {_said(file.columns)}, those of {paths[0]} {_said(columns)}")
        problems: list[tuple[int, str]] = []
        for number, row in file.rows:
            rating = _rating(row, columns, items)
            if isinstance(rating, str):
                problems.append((number, rating))
            elif rating and found.setdefault((rating.item, rating.rater), rating) is not rating:
                problems.append((number, f"{rating.rater!r} has rated {rating.item} before; keep one row"))
        raise_if_any(path, problems, "cannot be used")
    if not found:
        raise DataError(f"{paths[0]}: nothing is rated; fill in the column {columns[2]}")
    return Ratings(columns, tuple(found.values()))


def verdicts(ratings: Ratings, key: Key) -> list[Verdict]:
    """One for each pair that was rated, in the key's order.

    Of votes the lead is the share for a less that for b, and 0 where more than half say tie. Of scores it is the
    difference of the means; a pair of which one sample alone was scored has none.
    """
    rated: dict[str, list[Rating]] = {}
    for rating in ratings.ratings:
        rated.setdefault(rating.item, []).append(rating)
    found = []
    for name, pair in key.items():
        if ratings.columns == VOTES:
            said = rated.get(name, [])
            lead = _majority([rating.value for rating in said]) if said else None
        else:
            a, b = rated.get(f"{name}_a", []), rated.get(f"{name}_b", [])
            said = a + b
            lead = fmean(r.value for r in a) - fmean(r.value for r in b) if a and b else None
        if lead is not None:
            raters = tuple(dict.fromkeys(rating.rater for rating in said))
            found.append(Verdict(pair, lead, raters, _reasons(said)))
    return found


def each_rater(ratings: Ratings, key: Key) -> list[Verdict]:
    """One for each pair and rater: what that rater alone said."""
    return [verdict for rater in ratings.raters for verdict in verdicts(ratings.by(rater), key)]


def pairs_of(verdicts: Iterable[Verdict]) -> list[Pair]:
    """Rows to learn from; two sides of the same tokens make none. Raises `DataError` where tokens are not known."""
    pairs: list[Pair] = []
    for verdict in verdicts:
        sides = (verdict.pair.a, verdict.pair.b)
        if untold := [side.system for side in sides if side.answer.tokens is None]:
            raise DataError(
                f"prompt {verdict.pair.prompt.id!r}: the key has no tokens of {untold[0]!r}, so nothing can learn from "
                "the pair; leave --out away, or export pairs of an evaluation that keeps `tokens`"
            )
        chosen, rejected = (side.answer for side in (sides if verdict.lead >= 0 else sides[::-1]))
        if chosen.same_as(rejected):
            continue
        origin = Origin("human", ", ".join(verdict.raters), verdict.reason)
        margin = abs(verdict.lead)
        pairs.append(Pair(len(pairs) + 1, verdict.pair.prompt, chosen, rejected, margin, margin == 0, origin))
    return pairs


@dataclass(frozen=True)
class _File:
    columns: tuple[str, str, str]
    rows: Sequence[tuple[int, dict[str, str | None]]]
    """Each with its line."""


def _read(path: Path) -> _File:
    """A file as it stands, of the kind that its header names."""
    if not path.is_file():
        raise DataError(f"{path}: no such file of ratings; name a CSV file")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8; save the file as CSV UTF-8") from None
    reader = csv.DictReader(StringIO(text, newline=""))
    header = reader.fieldnames or []
    for columns in (VOTES, SCORES):
        if {*columns} <= {*header} <= {*columns, "reason"}:
            return _File(columns, [(reader.line_num, row) for row in reader])
    allowed = f"{_said(VOTES)}, or {_said(SCORES)}, and reason where there is one"
    raise DataError(f"{path}: the first line is {_said(header)!r}; it must be {allowed}, set apart by commas")


def _rating(row: dict[str, str | None], columns: tuple[str, str, str], items: Collection[str]) -> Rating | str | None:
    """The rating of a row, what is wrong with it, or nothing where the row is left blank."""
    if None in row:
        return "more columns than the header has; put text that has commas between quotes"
    item, rater, answer, reason = ((row.get(column) or "").strip() for column in (*columns, "reason"))
    if not answer:
        return None
    if item not in items:
        return f"{columns[0]} {item!r} is not in the key"
    if not rater:
        return "no rater; write a name or a number, the same on each row of one person"
    if columns == VOTES:
        lead = _LEADS.get(answer.lower())
        return f"answer is {answer!r}; allowed are a, b and tie" if lead is None else Rating(item, rater, lead, reason)
    try:
        score = float(answer)
    except ValueError:
        return f"score is {answer!r}, not a number"
    if not _LEAST <= score <= _MOST:
        return f"score is {score:g}; it must be {_LEAST:g} to {_MOST:g}"
    return Rating(item, rater, score, reason)


def _majority(leads: Sequence[float]) -> float:
    return 0.0 if 2 * leads.count(0.0) > len(leads) else fmean(leads)


def _reasons(said: Sequence[Rating]) -> str:
    """Who gave which; of one rater without the name."""
    alone = len({rating.rater for rating in said}) == 1
    return "; ".join(r.reason if alone else f"{r.rater}: {r.reason}" for r in said if r.reason)


def _said(columns: Sequence[str]) -> str:
    return ",".join(columns)
