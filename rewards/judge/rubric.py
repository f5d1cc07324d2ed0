"""A rubric: what a reply is rated by, criterion by criterion. YAML files, checked when they are loaded."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any

from rewards.judge.prompts import check_keys, read_yaml
from rewards.judge.types import Exchange
from rlhf_platform.errors import RecipeError

FOLDER = Path(__file__).parent / "rubrics"
APPLIES_TO = ("all", "single", "multi")

_CRITERION = {"name": True, "weight": False, "question": True, "levels": True, "applies_to": False}
_CRITERION |= {"fn": False, "kwargs": False}


@dataclass(frozen=True)
class Criterion:
    """One thing that a reply is rated by."""

    name: str
    weight: float
    question: str
    levels: Mapping[int, str]
    """What each level means, lowest first."""
    applies_to: str = "all"
    """`single`: the first turn of a dialogue; `multi`: later ones."""
    fn: str = ""
    """`module:name` of a function of the sample that gives the level, instead of the judge."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def range(self) -> tuple[int, int]:
        """Lowest and highest level."""
        return min(self.levels), max(self.levels)

    def applies(self, exchange: Exchange) -> bool:
        """Whether it says anything about a reply at this point of a dialogue."""
        return self.applies_to == "all" or self.applies_to == ("multi" if exchange.history else "single")


@dataclass(frozen=True)
class Rubric:
    """Criteria, with weights that sum to more than nothing."""

    name: str
    criteria: tuple[Criterion, ...]

    def applying(self, exchange: Exchange) -> list[Criterion]:
        """Those that say something at this point; those of weight 0 too, which are logged only."""
        return [criterion for criterion in self.criteria if criterion.applies(exchange)]


def weighted(scores: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """Mean of the scores by weight, over the criteria that have one. Raises `ValueError` when those weigh nothing."""
    total = sum(weights[name] for name in scores)
    if not total > 0.0:
        raise ValueError("none of the criteria that apply here has a weight above 0")
    return sum(weights[name] * score for name, score in scores.items()) / total


@cache
def load_rubric(name: str, key: str = "rubric") -> Rubric:
    """The rubric `name` of the platform, or of the YAML file at that path.

    Raises `RecipeError`, with the file and the criterion, for unknown or missing keys, two of one name, fewer than two
    levels, levels that are no whole numbers from 0 to 9, and weights that are negative or sum to nothing.
    """
    file, values = read_yaml(name, FOLDER, key)
    check_keys(values, {"criteria": True}, str(file))
    if not isinstance(values["criteria"], list):
        raise RecipeError(f"{file}: criteria is no list; write `- name: ...` for each")
    criteria = tuple(_criterion(each, f"{file}: criteria[{i}]") for i, each in enumerate(values["criteria"]))
    names = [criterion.name for criterion in criteria]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RecipeError(f"{file}: two criteria are named {', '.join(twice)}; give each a name of its own")
    if not sum(criterion.weight for criterion in criteria) > 0.0:
        raise RecipeError(f"{file}: the weights sum to nothing; give at least one criterion a weight above 0")
    return Rubric(Path(name).stem, criteria)


def _criterion(values: Any, where: str) -> Criterion:
    if not isinstance(values, dict):
        raise RecipeError(f"{where} is {values!r}; write keys and values")
    check_keys(values, _CRITERION, where)
    weight, levels = values.get("weight", 1.0), values["levels"]
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not (isfinite(weight) and weight >= 0.0):
        raise RecipeError(f"{where}: weight is {weight!r}; a number from 0 up is needed")
    if not isinstance(levels, dict) or len(levels) < 2:
        raise RecipeError(f"{where}: levels is {levels!r}; two or more are needed, each a number and what it means")
    if not all(type(level) is int and 0 <= level <= 9 for level in levels):
        raise RecipeError(
            f"{where}: levels are {', '.join(map(str, levels))}; whole numbers from 0 to 9, one digit each"
        )
    applies_to = values.get("applies_to", "all")
    if applies_to not in APPLIES_TO:
        raise RecipeError(f"{where}: applies_to is {applies_to!r}; allowed {', '.join(APPLIES_TO)}")
    if values.get("kwargs") and not values.get("fn"):
        raise RecipeError(f"{where}: kwargs are for a function; name it in fn")
    return Criterion(
        name=str(values["name"]),
        weight=float(weight),
        question=str(values["question"]),
        levels={level: str(levels[level]) for level in sorted(levels)},
        applies_to=applies_to,
        fn=str(values.get("fn", "")),
        kwargs=dict(values.get("kwargs") or {}),
    )
