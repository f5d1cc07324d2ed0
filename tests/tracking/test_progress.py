"""What a person reads, line by line; time is moved by hand."""

import io
import re
from itertools import pairwise

import pytest
from rich.console import Console
from rich.table import Table

from rlhf_platform.tracking import progress as module
from rlhf_platform.tracking.progress import LINE_EVERY, Display, step_numbers


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    time = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: time[0])
    return time


def plain() -> tuple[Display, io.StringIO]:
    file = io.StringIO()
    return Display(Console(file=file, width=200, color_system=None)), file


def test_without_a_terminal_a_phase_is_lines_with_time_step_estimate_and_numbers(now: list[float]) -> None:
    display, file = plain()
    with display.phase("RL step", 4) as phase:
        now[0] += 30
        phase.update(1, "reward 0.5", always=True)
        now[0] += 45
        phase.update(2, always=True)
        now[0] += 45
        phase.update(4, "reward 0.9")
    assert file.getvalue().splitlines() == [
        "[00:30] RL step 1/4, 90 s left  reward 0.5",
        "[01:15] RL step 2/4, 75 s left",
        "[02:00] RL step 4/4  reward 0.9",
    ]


def test_lines_of_one_phase_keep_their_distance_but_the_last_is_always_printed(now: list[float]) -> None:
    display, file = plain()
    with display.phase("check audio", 100) as phase:
        for done in range(1, 101):
            now[0] += 1
            phase.update(done)
    steps = [int(re.search(r"(\d+)/100", line)[1]) for line in file.getvalue().splitlines()]
    assert steps[-1] == 100
    assert all(later - earlier >= LINE_EVERY for earlier, later in pairwise(steps[:-1]))
    assert len(steps) <= 2 + 100 / LINE_EVERY


def test_a_phase_learns_its_length_as_it_runs(now: list[float]) -> None:
    display, file = plain()
    with display.phase("build data set", 1) as phase:
        phase.resize(10, 40)
        now[0] += 20
        phase.resize(20, 40)
    assert file.getvalue().splitlines()[-1] == "[00:20] build data set 20/40, 20 s left"


def test_no_estimate_before_the_first_step(now: list[float]) -> None:
    display, file = plain()
    with display.phase("warm start", 10) as phase:
        phase.update(0, "loading", always=True)
    assert file.getvalue() == "[00:00] warm start 0/10  loading\n"


def test_what_looks_like_markup_is_printed_as_it_is(now: list[float]) -> None:
    display, file = plain()
    now[0] += 3601
    display.line("data: [bold]x[/bold] in rewards[0]")
    assert file.getvalue() == "[60:01] data: [bold]x[/bold] in rewards[0]\n"


def test_a_table_is_shown() -> None:
    display, file = plain()
    table = Table("model", "WER")
    table.add_row("before RL", "37.8")
    display.show(table)
    assert "before RL" in file.getvalue()
    assert "37.8" in file.getvalue()


def test_on_a_terminal_bars_show_the_phase_its_count_and_its_numbers() -> None:
    file = io.StringIO()
    display = Display(Console(file=file, force_terminal=True, width=160, color_system=None, _environ={}))
    with display.phase("RL step", 8) as phase:
        assert display.bars is not None
        phase.update(3, "reward 0.500")
        display.line("held-out WER 12.3 %")
        phase.update(8, "reward 0.900")
    assert display.bars is None
    shown = file.getvalue()
    assert "━" in shown
    for part in ("RL step", "8/8", "reward 0.900", "held-out WER 12.3 %"):
        assert part in shown, part
    assert "left" not in shown  # the plain lines are for where there is no terminal


def test_after_a_phase_that_failed_the_next_one_can_be_shown() -> None:
    display = Display(Console(file=io.StringIO(), force_terminal=True, width=160))
    with pytest.raises(KeyError), display.phase("one", 2):
        raise KeyError
    with display.phase("two", 2) as phase:
        phase.update(2)


def test_the_numbers_of_a_step_are_on_one_line() -> None:
    metrics = {
        "reward": 0.51234,
        "sample_wer": 0.345,
        "kl": 0.00123,
        "logprob_diff_max": 2.34e-6,
        "probe_diff_max": 1e-6,
        "seconds/rollout": 2.04,
        "seconds/update": 3.0,
        "seconds": 5.04,
    }
    assert step_numbers(metrics) == (
        "reward 0.512  WER 34.5 %  KL 0.0012  mismatch 2.3e-06 before sync, 1.0e-06 after  [rollout 2.0 update 3.0 s]"
    )


def test_samples_without_a_reward_are_told_with_it() -> None:
    metrics = {"reward": 0.5, "sample_wer": 0.1, "kl": 0.0, "logprob_diff_max": 0.0, "probe_diff_max": 0.0}
    assert step_numbers(metrics | {"reward_failed": 0.0}).startswith("reward 0.500  WER")
    assert step_numbers(metrics | {"reward_failed": 3.0}).startswith("reward 0.500 (3 samples without)  WER")


def test_on_a_terminal_a_phase_within_a_phase_has_a_bar_of_its_own_and_leaves_the_other_alone() -> None:
    file = io.StringIO()
    display = Display(Console(file=file, width=200, force_terminal=True))
    with display.phase("RL step", 4) as outer:
        bars = display.bars
        assert bars is not None
        outer.update(1)
        with display.phase("ask judge small again", 2) as inner:
            inner.update(1)
            assert [(task.description, task.completed) for task in bars.tasks] == [
                ("RL step", 1),
                ("ask judge small again", 1),
            ]
        outer.update(2)
        assert display.bars is bars
        assert [(task.description, task.completed) for task in bars.tasks] == [("RL step", 2)]
    assert display.bars is None
