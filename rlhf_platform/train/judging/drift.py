"""Judges asked again on the way about the pairs that they were measured on: whether they still say the same."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from rewards.judge.settings import JudgeSettings
from rlhf_platform.data.labelled import Labelled
from rlhf_platform.evaluation.rulings import TIE, Recording, Ruling, decision
from rlhf_platform.tracking.progress import Display
from rlhf_platform.train.judging.calibrating import record
from rlhf_platform.train.spread import mean


@dataclass(frozen=True)
class Watched:
    """A judge, and what it said before the first step."""

    name: str
    every: int
    settings: JudgeSettings
    pairs: Sequence[Labelled]
    before: Sequence[Ruling]


def look_again(watched: Sequence[Watched], step: int, display: Display) -> dict[str, float]:
    """Ask the judges whose turn it is. `judge_moved`: share of pairs whose winner is another than before;
    `judge_accuracy`: share on which it agrees with the label. Of several judges the worst counts.

    A pair without a verdict now counts as moved, and as wrong.
    """
    moved, right = [], []
    for judge in watched:
        if step % judge.every:
            continue
        now = _asked(judge, display)
        before, after = ({said.id: decision(said.level) for said in each} for each in (judge.before, now.rulings))
        moved.append(mean([decided != after.get(name) for name, decided in before.items()]))
        right.append(mean([after.get(pair.id) == pair.better for pair in judge.pairs if pair.better != TIE]))
    return {"judge_moved": max(moved), "judge_accuracy": min(right)} if moved else {}


def _asked(judge: Watched, display: Display) -> Recording:
    with display.phase(f"ask judge {judge.name} again", len(judge.pairs)) as phase:
        return asyncio.run(record(judge.settings, judge.pairs, lambda done, _: phase.update(done)))
