"""A judge that is asked again: one that says the same has not moved, one that was replaced has."""

import asyncio
from collections.abc import Callable
from io import StringIO

import pytest
from rich.console import Console

from rewards.judge.settings import JudgeSettings
from rlhf_platform.tracking.progress import Display
from rlhf_platform.train.judging.calibrating import record
from rlhf_platform.train.judging.drift import Watched, look_again
from tests.judge_endpoint import judging
from tests.train.judging.test_calibrating import labelled, shorter

SILENT = Display(Console(file=StringIO()))


def longer(first: str, second: str) -> float:
    return 1 - shorter(first, second)


def watched(rule: Callable[[str, str], float], name: str = "small", every: int = 2) -> Watched:
    with judging(rule) as judge:
        before = asyncio.run(record(JudgeSettings(judge=judge.url), labelled())).rulings
    return Watched(name, every, JudgeSettings(judge="http://127.0.0.1:1/v1", retries=0), labelled(), before)


def at(judge: Watched, url: str) -> Watched:
    return Watched(judge.name, judge.every, JudgeSettings(judge=url, retries=0), judge.pairs, judge.before)


def test_it_is_asked_in_its_steps_alone() -> None:
    before = watched(shorter)
    with judging(shorter) as judge:
        assert look_again([at(before, judge.url)], 3, SILENT) == {}
        assert judge.requests == []
        # The shorter of the first three is the better, of the last the worse.
        assert look_again([at(before, judge.url)], 4, SILENT) == {"judge_moved": 0.0, "judge_accuracy": 0.75}
        assert len(judge.requests) == 8
    assert look_again([], 4, SILENT) == {}


def test_another_model_behind_the_same_address_shows_and_the_worst_judge_counts() -> None:
    before = watched(shorter)
    with judging(longer) as other, judging(shorter) as same:
        found = look_again([at(before, same.url), at(before, other.url)], 2, SILENT)
    assert found == {"judge_moved": 1.0, "judge_accuracy": 0.25}


def test_a_judge_that_is_gone_has_moved_on_all_and_is_right_on_none() -> None:
    assert look_again([watched(shorter)], 2, SILENT) == {"judge_moved": 1.0, "judge_accuracy": 0.0}


@pytest.mark.parametrize("step", [1, 2])
def test_judges_have_steps_of_their_own(step: int) -> None:
    often, seldom = watched(shorter, "often", 1), watched(longer, "seldom", 2)
    with judging(shorter) as judge:
        found = look_again([at(often, judge.url), at(seldom, judge.url)], step, SILENT)
    assert found["judge_moved"] == (1.0 if step == 2 else 0.0)


def test_it_says_how_far_it_is() -> None:
    said = StringIO()
    before = watched(shorter)
    with judging(shorter) as judge:
        look_again([at(before, judge.url)], 2, Display(Console(file=said, width=100)))
    assert "ask judge small again 4/4" in said.getvalue()
