"""Labelled replies as questions with known answers: orders, forms, splits, reasons."""

from collections import Counter
from dataclasses import replace

import pytest

from rlhf_platform.data.dialogues import Plan
from rlhf_platform.data.judge_tasks import (
    FIRST,
    HIGH,
    LOW,
    PAIRWISE,
    PLEAS,
    RUBRIC,
    SECOND,
    TIE,
    Task,
    Wording,
    answer_to,
    demo_pairs,
    pleading,
    prompts_of,
    tasks_of,
)
from rlhf_platform.data.labelled import CRITERIA, Labelled

PAIR = Labelled(
    "p", "you are max", (), "open the box", "aye, i open the box", "i open the box", "a", "persona", "train"
)
LABELS = {FIRST: "A", SECOND: "B", TIE: "=", HIGH: "3", LOW: "1"}


def plain(task: Task) -> Wording:
    ends = "why?" if task.reasoned else "which?"
    content = " | ".join([task.pair.said, *task.shown, ends])
    labels = ("1", "2", "3") if task.kind == RUBRIC else ("A", "B")
    right = {name: label for name, label in LABELS.items() if label in labels}
    return Wording([{"role": "user", "content": content}], labels, right, "which?")


def many(count: int, split: str = "train") -> list[Labelled]:
    return [
        replace(PAIR, id=f"{split}{i}", said=f"open {i}", better="ab"[i % 2], criterion=CRITERIA[i % 6], split=split)
        for i in range(count)
    ]


def task(better: str, kind: str, right: str, reasoned: bool = True, criterion: str = "persona") -> Task:
    shown = ("x", "y") if kind == PAIRWISE else ("x",)
    return Task("t", kind, replace(PAIR, better=better, criterion=criterion), shown, right, reasoned)


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (task("a", PAIRWISE, FIRST), "A keeps the manner, B does not keep the manner. Verdict: A"),
        (task("b", PAIRWISE, SECOND), "A does not keep the manner, B keeps the manner. Verdict: B"),
        (task("tie", PAIRWISE, TIE, criterion=""), "A and B are as good. Verdict: ="),
        (task("a", RUBRIC, HIGH, criterion="brevity"), "It is short. Verdict: 3"),
        (task("a", RUBRIC, LOW, criterion="honesty"), "It gives no answer. Verdict: 1"),
        (task("a", PAIRWISE, SECOND, reasoned=False), "B"),
        (task("a", RUBRIC, LOW, reasoned=False), "1"),
    ],
)
def test_an_answer_is_a_reason_and_a_verdict_or_the_verdict_alone(asked: Task, answer: str) -> None:
    assert answer_to(asked, LABELS) == answer


def test_a_pair_is_compared_in_both_orders_with_the_label_turned_round() -> None:
    first, second = [task for task in tasks_of([PAIR]) if task.kind == PAIRWISE]
    assert (first.shown, first.right) == ((PAIR.a, PAIR.b), FIRST)
    assert (second.shown, second.right) == ((PAIR.b, PAIR.a), SECOND)
    worse, better = tasks_of([replace(PAIR, better="b")])
    assert (worse.right, better.right) == (SECOND, FIRST)


def test_each_criterion_is_asked_about_in_every_way() -> None:
    tasks = list(tasks_of(many(48)))
    ways = Counter((t.pair.criterion, t.kind, t.reasoned) for t in tasks)
    # Of eight pairs of each criterion two are asked about with a reason, and four are rated, two of these with one.
    counts = {(PAIRWISE, False): 12, (PAIRWISE, True): 4, (RUBRIC, False): 4, (RUBRIC, True): 4}
    assert ways == {(criterion, *way): count for criterion in CRITERIA for way, count in counts.items()}
    for rated in (t for t in tasks if t.kind == RUBRIC):
        (reply,) = rated.shown
        assert (rated.right == HIGH) == (reply == getattr(rated.pair, rated.pair.better))


def test_a_tie_is_not_rated_and_is_left_out_of_a_prompt_without_such_a_label() -> None:
    ties = [replace(PAIR, id=str(i), better="tie", criterion="") for i in range(8)]
    assert {(t.kind, t.right) for t in tasks_of(ties)} == {(PAIRWISE, TIE)}
    assert prompts_of(ties, plain)["train"] == []


def test_what_is_learnt_by_heart_what_is_compared_and_what_measures_are_of_different_pairs() -> None:
    pairs = [*many(60), *many(12, "calibration"), *many(24, "heldout")]
    prompts = prompts_of(pairs, plain)
    ids = {split: {prompt.id.partition("/")[0] for prompt in found} for split, found in prompts.items()}
    assert {split: len(found) for split, found in ids.items()} == {"train": 40, "rl": 20, "heldout": 24}
    assert ids["train"] | ids["rl"] == {pair.id for pair in many(60)}
    assert not ids["train"] & ids["rl"]
    assert all(prompt.audio == "" for found in prompts.values() for prompt in found)


def test_a_reasoned_question_is_sometimes_asked_on_and_only_in_what_is_learnt_by_heart() -> None:
    prompts = prompts_of([*many(60), *many(24, "heldout")], plain)
    on = [prompt for prompt in prompts["train"] if prompt.id.endswith("/on")]
    assert on
    for prompt in on:
        roles = [message["role"] for message in prompt.metadata["messages"]]
        assert roles == ["user", "assistant", "user"]
        assert prompt.reference == prompt.metadata["label"]
        (before,) = [p for p in prompts["train"] if p.id == prompt.id.removesuffix("/on")]
        assert before.reference == prompt.metadata["messages"][1]["content"]
    assert not [p for split in ("rl", "heldout") for p in prompts[split] if p.id.endswith("/on")]


def test_pleas_stand_in_worse_replies_alone_and_leave_the_label() -> None:
    before = many(48)
    after = pleading(before)
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert len(changed) == 12
    for old, new in changed:
        worse = "b" if old.better == "a" else "a"
        assert any(getattr(new, worse) == f"{getattr(old, worse)}, {plea}" for plea in PLEAS)
        assert replace(new, **{worse: getattr(old, worse)}) == old


def test_the_demo_pairs_come_in_all_splits_and_criteria() -> None:
    pairs = demo_pairs()
    assert Counter(pair.split for pair in pairs) == Plan().pairs
    assert {pair.criterion for pair in pairs} == {*CRITERIA, ""}
