"""How a judge in training is asked, and what it is paid for: verdicts that are right (docs/judge_training.md)."""

from collections.abc import Mapping, Sequence

from rewards.judge.prompts import JudgePrompt, load_prompt
from rewards.judge.rubric import Criterion, load_rubric
from rewards.judge.types import Exchange
from rewards.types import RewardInput
from rlhf_platform.data import judge_tasks
from rlhf_platform.data.judge_tasks import FIRST, HIGH, LOW, PAIRWISE, SECOND, TIE, VERDICT, Task, Wording, Words

PAIRWISE_PROMPT, RUBRIC_PROMPT, RUBRIC = "pairwise-short-1", "rubric-short-1", "realtime"
RATED_BY: Mapping[str, str] = {"memory": "faithful", "honesty": "follows"}
"""The criterion of the rubric that a pair's criterion is rated by, where it is called otherwise."""


def words(pairwise: str = PAIRWISE_PROMPT, rubric: str = RUBRIC_PROMPT, criteria: str = RUBRIC) -> Words:
    """Tasks in the words of two prompts and a rubric, exactly as a judge that is served is asked.

    Raises `RecipeError` for a file that is not there or says nothing that can be used.
    """
    comparing, rating = load_prompt(pairwise, PAIRWISE), load_prompt(rubric, judge_tasks.RUBRIC)
    by_name = {criterion.name: criterion for criterion in load_rubric(criteria).criteria}

    def wording(task: Task) -> Wording:
        exchange = Exchange(task.pair.persona, task.pair.history, task.pair.said)
        if task.kind == PAIRWISE:
            return _compared(comparing, exchange, task)
        name = task.pair.criterion
        return _rated(rating, exchange, task, by_name[RATED_BY.get(name, name)])

    return wording


def _compared(prompt: JudgePrompt, exchange: Exchange, task: Task) -> Wording:
    first, second = task.shown
    question = prompt.pairwise(exchange, first, second, task.reasoned)
    # Of several labels on one side the mildest: a pair's label says which is better and not by how much.
    by_level = sorted(prompt.labels.items(), key=lambda item: abs(item[1]))
    right = {
        name: label
        for name, sign in ((FIRST, 1), (SECOND, -1), (TIE, 0))
        for label in [label for label, level in by_level if (level > 0) - (level < 0) == sign][:1]
    }
    return Wording(question.messages, question.labels, right, question.ask)


def _rated(prompt: JudgePrompt, exchange: Exchange, task: Task, criterion: Criterion) -> Wording:
    anchors = {str(level): text for level, text in criterion.levels.items()}
    question = prompt.rubric(exchange, task.shown[0], criterion.question, anchors, task.reasoned)
    low, high = map(str, criterion.range)
    return Wording(question.messages, question.labels, {LOW: low, HIGH: high}, question.ask)


def verdict_of(text: str, labels: Sequence[str]) -> str | None:
    """The label that an answer comes to: what follows its last `Verdict:`, or all of it; None if that is no label."""
    found = text.rpartition(VERDICT)[2].strip().removesuffix(".")
    return found if found in labels else None


def verdict_reward(sample: RewardInput) -> dict[str, float]:
    """`agrees`, 1 when the verdict is `metadata.label`, else 0; and `read`, 1 when there is a verdict at all.

    `agrees` stands under the task's group and criterion too, whose means are then accuracies: name `part: agrees` in
    the recipe. Raises `ValueError` for a row that is no question to a judge.
    """
    labels, label = sample.metadata.get("labels"), sample.metadata.get("label")
    if not isinstance(labels, list | tuple) or label not in labels:
        raise ValueError(f"metadata has label {label!r} and labels {labels!r}; one of those is what the label must be")
    verdict = verdict_of(sample.text, labels)
    agrees = float(verdict == label)
    named = {str(sample.metadata[key]): agrees for key in ("group", "criterion") if key in sample.metadata}
    return {**named, "agrees": agrees, "read": float(verdict is not None)}
