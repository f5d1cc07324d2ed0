"""A judge in training is asked as a judge that is served, and is paid for verdicts that are right."""

from dataclasses import replace

import pytest

from rewards.answers import read_answer
from rewards.judge.prompts import load_prompt
from rewards.judge.rubric import load_rubric
from rewards.judge.types import Exchange
from rewards.judge_training import RUBRIC_PROMPT, verdict_of, verdict_reward, words
from rewards.types import RewardInput
from rlhf_platform.data.judge_tasks import PAIRWISE, RUBRIC, demo_pairs, prompts_of, tasks_of
from rlhf_platform.data.labelled import CRITERIA

LABELS = ["A", "B"]
ASKED = RewardInput("p1", "B", metadata={"label": "B", "labels": LABELS, "group": "pairwise", "criterion": "persona"})


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("A", "A"),
        (" B ", "B"),
        ("B.", "B"),
        ("A keeps the manner, B does not. Verdict: A", "A"),
        ("Verdict: A no, Verdict: B", "B"),
        ("A keeps the manner", None),
        ("Verdict: A or B", None),
        ("Verdict: C", None),
        ("Verdict:", None),
        ("a", None),
        ("", None),
    ],
)
def test_a_verdict_is_the_label_at_the_end(text: str, verdict: str | None) -> None:
    assert verdict_of(text, LABELS) == verdict


def test_a_right_verdict_is_paid_and_stands_under_its_group_and_criterion() -> None:
    assert verdict_reward(ASKED) == {"pairwise": 1.0, "persona": 1.0, "agrees": 1.0, "read": 1.0}
    wrong = verdict_reward(replace(ASKED, text="A"))
    assert wrong == {"pairwise": 0.0, "persona": 0.0, "agrees": 0.0, "read": 1.0}
    unreadable = verdict_reward(replace(ASKED, text="both"))
    assert unreadable == {"pairwise": 0.0, "persona": 0.0, "agrees": 0.0, "read": 0.0}
    assert read_answer(wrong, "verdict") == wrong


@pytest.mark.parametrize("metadata", [{}, {"label": "B"}, {"label": "C", "labels": LABELS}, {"labels": LABELS}])
def test_a_row_that_is_no_question_to_a_judge_is_a_failure_and_no_number(metadata: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="the label must be"):
        verdict_reward(replace(ASKED, metadata=metadata))


def test_the_messages_are_those_that_a_served_judge_is_asked_with() -> None:
    pairs = [pair for pair in demo_pairs() if pair.history][:12]
    wording = words("pairwise-2")
    for task in tasks_of(pairs):
        exchange = Exchange(task.pair.persona, task.pair.history, task.pair.said)
        if task.kind == PAIRWISE:
            question = load_prompt("pairwise-2", PAIRWISE).pairwise(exchange, *task.shown, task.reasoned)
            # Of its five labels those of the mildest levels: 1, -1 and 0.
            assert wording(task).right == {"first": "2", "second": "4", "tie": "3"}
        else:
            name = {"memory": "faithful", "honesty": "follows"}.get(task.pair.criterion, task.pair.criterion)
            (criterion,) = [c for c in load_rubric("realtime").criteria if c.name == name]
            anchors = {str(level): text for level, text in criterion.levels.items()}
            prompt = load_prompt(RUBRIC_PROMPT, RUBRIC)
            question = prompt.rubric(exchange, task.shown[0], criterion.question, anchors, task.reasoned)
            assert wording(task).right == {"low": "1", "high": "3"}
        assert wording(task).messages == question.messages
        assert tuple(wording(task).labels) == question.labels


def test_every_answer_to_learn_is_paid_in_full_and_every_criterion_can_be_asked_about() -> None:
    prompts = prompts_of(demo_pairs(), words())
    for found in prompts.values():
        for prompt in found:
            assert verdict_reward(RewardInput.of(prompt, prompt.reference))["agrees"] == 1.0
        assert {(p.metadata["group"], p.metadata["criterion"]) for p in found} == {
            (kind, criterion) for kind in (PAIRWISE, RUBRIC) for criterion in CRITERIA
        }
        labels = [p.metadata["label"] for p in found if p.metadata["group"] == PAIRWISE]
        assert labels.count("A") == pytest.approx(len(labels) / 2, rel=0.05)
