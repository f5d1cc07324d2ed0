"""Rewards by a generative judge (docs/judges.md): what a recipe names as `rewards.judge:NAME`."""

from rewards.judge.judging import PairJudge, RubricJudge
from rewards.judge.preference import Preference
from rewards.judge.rubric_score import RubricScore
from rewards.judge.settings import JudgeSettings
from rewards.judge.types import Exchange, JudgeFailure, Verdict

__all__ = [
    "Exchange",
    "JudgeFailure",
    "JudgeSettings",
    "PairJudge",
    "Preference",
    "RubricJudge",
    "RubricScore",
    "Verdict",
]
