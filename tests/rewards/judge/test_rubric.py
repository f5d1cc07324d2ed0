"""Rubrics: what they hold, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from rewards.judge.checks import brevity
from rewards.judge.rubric import load_rubric, weighted
from rewards.judge.types import Exchange
from rewards.types import RewardInput
from rlhf_platform.errors import RecipeError

FIRST_TURN = Exchange("", (), "hello")
LATER_TURN = Exchange("", (("user", "hi"), ("assistant", "hello")), "and now")
GOOD: dict[str, Any] = {"name": "kind", "question": "Is it kind?", "levels": {1: "no", 2: "yes"}}


def rubric_file(folder: Path, *criteria: object, **more: object) -> str:
    file = folder / "r.yaml"
    file.write_text(yaml.safe_dump({"criteria": list(criteria), **more}))
    return str(file)


def test_the_shipped_rubric_asks_of_earlier_turns_only_where_there_are_some() -> None:
    rubric = load_rubric("realtime")
    single = [criterion.name for criterion in rubric.applying(FIRST_TURN)]
    multi = [criterion.name for criterion in rubric.applying(LATER_TURN)]
    assert single == ["follows", "persona", "safety", "brevity"]
    assert set(multi) - set(single) == {"coherence", "faithful"}


def test_a_score_is_the_mean_by_weight_over_what_applies() -> None:
    assert weighted({"a": 1.0, "b": 0.0}, {"a": 3.0, "b": 1.0, "c": 9.0}) == 0.75


def test_criteria_that_weigh_nothing_give_no_score() -> None:
    with pytest.raises(ValueError, match="weight above 0"):
        weighted({"a": 1.0}, {"a": 0.0})


@pytest.mark.parametrize(
    ("criteria", "said"),
    [
        ([GOOD | {"wieght": 1}], r"criteria\[0\]: unknown key wieght"),
        ([GOOD, GOOD], "two criteria are named kind"),
        ([GOOD | {"weight": 0}], "weights sum to nothing"),
        ([], "weights sum to nothing"),
        ([GOOD | {"weight": -1}], "weight is -1"),
        ([GOOD | {"weight": True}], "weight is True"),
        ([GOOD | {"levels": {1: "only"}}], "two or more"),
        ([GOOD | {"levels": {1: "no", 10: "yes"}}], "whole numbers from 0 to 9"),
        ([GOOD | {"levels": {"low": "no", "high": "yes"}}], "whole numbers from 0 to 9"),
        ([GOOD | {"applies_to": "first"}], "allowed all, single, multi"),
        ([GOOD | {"kwargs": {"x": 1}}], "name it in fn"),
        ([{"name": "kind"}], "question, levels is missing"),
        (["kind"], "write keys and values"),
    ],
)
def test_a_rubric_that_cannot_be_used_is_refused(tmp_path: Path, criteria: list[object], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load_rubric(rubric_file(tmp_path, *criteria))


def test_an_unknown_key_beside_the_criteria_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="unknown key weights"):
        load_rubric(rubric_file(tmp_path, GOOD, weights=[1]))


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("one two three", 3),
        ("one two three four", 2),
        ("a b c d e f g", 1),
        ("<think>a b c d e f g</think> one two", 3),
        ("<think>a", 1),
    ],
)
def test_brevity_counts_the_words_of_the_reply_alone(text: str, level: int) -> None:
    assert brevity(RewardInput("p", text), words=3) == level
