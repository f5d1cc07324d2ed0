"""Two runs side by side, against numbers worked out by hand."""

import math
from pathlib import Path

import pytest

from rlhf_platform.errors import RunError
from rlhf_platform.evaluation.report import EvalResult
from rlhf_platform.tracking.comparison import ABSENT, heldout, recipe_differences, training
from rlhf_platform.tracking.history import Run, read_run
from tests.runs import AFTER, BEFORE, REFERENCES, evaluation, steps, write_run


def pair(folder: Path, **of_second: object) -> tuple[Run, Run]:
    return read_run(write_run(folder / "a")), read_run(write_run(folder / "b", **of_second))  # type: ignore[arg-type]


def test_only_keys_that_differ_with_both_values_lists_as_a_whole() -> None:
    a = {"name": "a", "steps": 3, "learner": {"lora": {"rank": 0}, "cpus": 1}, "rewards": [{"fn": "x"}], "old": 1}
    b = {"name": "b", "steps": 3, "learner": {"lora": {"rank": 8}, "cpus": 1}, "rewards": [{"fn": "y"}], "new": {}}
    assert [(d.key, d.a, d.b) for d in recipe_differences(a, b)] == [
        ("name", "a", "b"),
        ("learner.lora.rank", 0, 8),
        ("rewards", [{"fn": "x"}], [{"fn": "y"}]),
        ("old", 1, ABSENT),
        ("new", ABSENT, {}),
    ]
    assert recipe_differences(a, a) == []


def test_held_out_wer_is_compared_clip_by_clip_for_all_and_each_group(tmp_path: Path) -> None:
    # 11 words. Errors of A: 0, 0, 0 and 1 (pen); of B: 1 (1), 0, 1 (hold) and 2 (a pen).
    a, b = pair(tmp_path, after=evaluation(BEFORE))
    rows = heldout(a, b)
    assert [(row.group, row.clips, row.before.errors, row.after.errors) for row in rows] == [
        ("all", 4, 1, 4),
        ("clean", 2, 0, 1),
        ("telephone", 2, 1, 3),
    ]
    assert rows[0].difference.point == pytest.approx(3 / 11)
    assert rows[0].difference.low > 0
    assert heldout(b, a)[0].difference.point == pytest.approx(-3 / 11)
    same = heldout(a, a)[0].difference
    assert (same.point, same.low, same.high) == (0.0, 0.0, 0.0)


def test_a_run_without_rl_steps_is_compared_by_what_it_began_with(tmp_path: Path) -> None:
    a, b = pair(tmp_path, recipe={"steps": 0})
    assert [row.after.errors for row in heldout(a, b)] == [4, 1, 3]


def test_other_clips_transcripts_or_normaliser_are_refused(tmp_path: Path) -> None:
    a = read_run(write_run(tmp_path / "a"))
    texts = ("press nine", *REFERENCES[1:])
    for name, after, message in (
        ("fewer", evaluation(AFTER[:3], references=REFERENCES[:3]), "different clips"),
        ("texts", evaluation(AFTER, references=texts), "clip clip-0 has the transcripts 'press one' and 'press nine'"),
        ("rules", EvalResult("after RL", evaluation(AFTER).utterances, "0"), "normalisers"),
    ):
        with pytest.raises(RunError, match=message):
            heldout(a, read_run(write_run(tmp_path / name, after=after)))


def test_a_run_that_was_not_evaluated_is_refused(tmp_path: Path) -> None:
    a, b = pair(tmp_path)
    (b.path / "evaluation_after_RL.json").unlink()
    with pytest.raises(RunError, match=r"no evaluation_after_RL\.json"):
        heldout(a, b)
    (b.path / "evaluation_after_RL.json").write_text("{}")
    with pytest.raises(RunError, match="not an evaluation"):
        heldout(a, b)


def test_training_compares_the_means_of_the_last_quarter(tmp_path: Path) -> None:
    a = read_run(write_run(tmp_path / "a", metrics=steps([float(i) for i in range(1, 17)])))
    b = read_run(write_run(tmp_path / "b", metrics=steps([2.0 * i for i in range(1, 17)])))
    found = training(a, b)
    assert (found.steps_a, found.steps_b, found.paired, found.blocks) == ((13, 16), (13, 16), True, (2, 2))
    assert [metric.name for metric in found.metrics] == ["reward", "kl", "entropy", "seconds"]
    reward, kl = found.metrics[:2]
    assert (reward.a, reward.b) == (14.5, 29.0)
    assert reward.difference is not None
    assert reward.difference.point == 14.5
    assert reward.difference.low < 14.5 < reward.difference.high
    assert kl.difference is not None
    assert (kl.difference.low, kl.difference.point, kl.difference.high) == (0.0, 0.0, 0.0)
    assert training(a, b) == found


def test_runs_of_other_lengths_are_compared_unpaired(tmp_path: Path) -> None:
    a = read_run(write_run(tmp_path / "a", metrics=steps([1.0] * 16)))
    b = read_run(write_run(tmp_path / "b", metrics=steps([3.0] * 33)))
    found = training(a, b)
    assert (found.steps_a, found.steps_b, found.paired, found.blocks) == ((13, 16), (25, 33), False, (2, 3))
    difference = found.metrics[0].difference
    assert difference is not None
    assert (difference.low, difference.point, difference.high) == (2.0, 2.0, 2.0)


def test_few_steps_have_means_and_no_interval(tmp_path: Path) -> None:
    a, b = pair(tmp_path)
    reward = training(a, b).metrics[0]
    assert (reward.a, reward.difference) == (pytest.approx(0.75), None)


def test_a_step_without_a_number_counts_in_neither_run_when_paired(tmp_path: Path) -> None:
    broken = steps([float(i) for i in range(1, 21)])
    broken[-1]["reward"] = math.nan
    a = read_run(write_run(tmp_path / "a", metrics=steps([float(i) for i in range(1, 21)])))
    b = read_run(write_run(tmp_path / "b", metrics=broken))
    reward = training(a, b).metrics[0]
    assert (reward.a, reward.b) == (17.5, 17.5)  # of 16 to 19


def test_a_metric_of_one_run_only_is_left_out_and_no_step_is_refused(tmp_path: Path) -> None:
    a, b = pair(tmp_path, metrics=[{**row, "reward/mine": 1.0} for row in steps([1.0] * 8)])
    assert "reward/mine" not in [metric.name for metric in training(a, b).metrics]
    with pytest.raises(RunError, match="no RL step"):
        training(a, read_run(write_run(tmp_path / "c", metrics=[])))
