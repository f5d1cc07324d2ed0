"""Rehearsal in a run: when it is on, and on which rows."""

from pathlib import Path

from rlhf_platform.recipe.load import load_recipe
from rlhf_platform.train.rehearsing import Rehearsing
from rlhf_platform.types import Prompt

ROWS = [Prompt(f"row {n}", "", "yes", "en") for n in range(30)]


def rehearsing(tmp_path: Path, *overrides: str, history: tuple[dict[str, float], ...] = ()) -> Rehearsing:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "name: a\ndata: {demo: digits}\nrewards: [{fn: rewards.asr:wer_reward}]\n"
        "rehearsal: {metric: heldout_wer, higher_is_better: false, tolerance: 0.1, samples: 4, weight: 0.5}\n"
    )
    return Rehearsing(load_recipe(path, overrides).recipe, ROWS, history)


def test_nothing_is_rehearsed_while_the_metric_holds(tmp_path: Path) -> None:
    found = rehearsing(tmp_path)
    for wer in (0.5, 0.45, 0.5):
        found.note({"heldout_wer": wer})
        assert found.next(1) == ([], 0.0)


def test_a_fall_brings_rows_and_their_weight_and_a_recovery_ends_it(tmp_path: Path) -> None:
    found = rehearsing(tmp_path)
    found.note({"heldout_wer": 0.3})
    found.note({"heldout_wer": 0.45})
    rows, weight = found.next(3)
    assert (len(rows), weight) == (4, 0.5)
    found.note({})  # a step without an evaluation leaves it on
    assert found.next(4)[1] == 0.5
    found.note({"heldout_wer": 0.34})
    assert found.next(5) == ([], 0.0)


def test_a_run_that_goes_on_rehearses_what_it_would_have(tmp_path: Path) -> None:
    history = ({"heldout_wer": 0.3}, {}, {"heldout_wer": 0.5})
    whole = rehearsing(tmp_path)
    for metrics in history:
        whole.note(metrics)
    assert rehearsing(tmp_path, history=history).next(7) == whole.next(7)
    assert whole.next(7) != whole.next(8)


def test_a_recipe_that_watches_nothing_rehearses_nothing(tmp_path: Path) -> None:
    found = rehearsing(tmp_path, "rehearsal.metric=''")
    found.note({"heldout_wer": 0.1})
    found.note({"heldout_wer": 0.9})
    assert found.next(1) == ([], 0.0)
