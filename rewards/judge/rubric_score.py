"""The reward that has a reply rated by a rubric."""

import asyncio
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any

from rewards.judge.dialogue import exchange_of, reply_of
from rewards.judge.judging import RubricJudge
from rewards.judge.rubric import Criterion, Rubric, load_rubric, weighted
from rewards.judge.settings import JudgeSettings
from rewards.judge.types import JudgeFailure
from rewards.judge.verdict import check_phi, worth
from rewards.plugin import resolve
from rewards.types import RewardInput
from rlhf_platform.errors import RecipeError
from rlhf_platform.types import Failed

Check = Callable[[RewardInput], Any]
_OWN = ("rubric", "verdicts", "cached", "tokens")
"""Parts that are no criteria."""


@dataclass(frozen=True, kw_only=True)
class RubricScore(JudgeSettings):
    """Mean of a rubric's criteria by weight, in [0, 1], each rated by itself by a generative judge or a function.

    Parts: `rubric`; each criterion that applies by its name, in [0, 1]; `cached`, share of its verdicts; `verdicts`,
    asked for; `tokens`, paid for. An empty reply is the lowest level of all; nobody is asked. Fails as the judge does.
    """

    rubric: str = "realtime"
    """Name of a rubric that comes with the platform, or the path of a YAML file."""
    phi: Mapping[Any, float] = field(default_factory=dict)
    """What each level is worth, in [0, 1] and linear between those given; empty: from 0 for a criterion's lowest
    to 1 for its highest."""
    _rubric: Rubric = field(init=False, repr=False, compare=False)
    _checks: Mapping[str, Check] = field(init=False, repr=False, compare=False)
    _judge: RubricJudge = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        rubric = load_rubric(self.rubric)
        for criterion in rubric.criteria:
            if criterion.name in _OWN:
                raise RecipeError(f"rubric {rubric.name}: a criterion is named {criterion.name!r}; name it otherwise")
        try:
            object.__setattr__(self, "phi", check_phi(self.phi) if self.phi else {})
        except ValueError as error:
            raise RecipeError(str(error)) from None
        object.__setattr__(self, "_rubric", rubric)
        object.__setattr__(self, "_checks", {each.name: _check(each, rubric) for each in rubric.criteria if each.fn})
        object.__setattr__(self, "_judge", RubricJudge(self))

    async def __call__(self, sample: RewardInput) -> dict[str, float] | Failed:
        """The parts, or why there are none."""
        exchange, reply = exchange_of(sample), reply_of(sample)
        criteria = self._rubric.applying(exchange)
        asked = [each for each in criteria if reply and each.name not in self._checks]
        try:
            ratings = await asyncio.gather(*(self._judge.rate(exchange, reply, each) for each in asked))
        except JudgeFailure as failure:
            return failure.failed()
        levels = {each.name: rating.level for each, rating in zip(asked, ratings, strict=True)}
        for each in criteria:
            if each.name not in levels:
                levels[each.name] = _level(self._checks[each.name](sample), each) if reply else each.range[0]
        scores = {each.name: self._worth(levels[each.name], each) for each in criteria}
        total = weighted(scores, {each.name: each.weight for each in criteria})
        known = sum(rating.cached for rating in ratings)
        return {
            "rubric": total,
            **scores,
            "cached": known / len(ratings) if ratings else 0.0,
            "verdicts": float(len(ratings)),
            "tokens": float(sum(rating.prompt_tokens + rating.completion_tokens for rating in ratings)),
        }

    def state_dict(self) -> dict[str, int]:
        """What is spent."""
        return self._judge.budget.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on with what was left."""
        self._judge.budget.load_state_dict(state)

    def _worth(self, level: float, criterion: Criterion) -> float:
        low, high = criterion.range
        return worth(level, self.phi or {low: 0.0, high: 1.0})


def _check(criterion: Criterion, rubric: Rubric) -> Callable[[RewardInput], Any]:
    key = f"rubric {rubric.name}: {criterion.name}.fn"
    found = resolve(criterion.fn, Path(), key)
    if inspect.iscoroutinefunction(found) or inspect.isclass(found):
        raise RecipeError(f"{key} is {criterion.fn!r}: a plain function of the sample is needed")
    try:
        inspect.signature(found).bind(None, **criterion.kwargs)
    except TypeError as error:
        raise RecipeError(f"{key} is {criterion.fn!r}: it does not take one sample and kwargs ({error})") from None
    return partial(found, **criterion.kwargs)


def _level(found: Any, criterion: Criterion) -> float:
    low, high = criterion.range
    if isinstance(found, bool) or not isinstance(found, Real) or not low <= float(found) <= high:
        raise ValueError(f"{criterion.fn} gave {found!r}: a level from {low} to {high} is needed")
    return float(found)
