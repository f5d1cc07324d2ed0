"""What an evaluation of speech wrote, and a table of it that holds also where little could be scored."""

from pathlib import Path

import numpy as np
import pytest

from rlhf_platform.evaluation.report import as_lines
from rlhf_platform.evaluation.speech import difference, read_speech, table, win_rate, write_speech
from rlhf_platform.types import Failed, Outcome, Prompt, Sample, Scored, ScoredSample, Sounds, StopReason

WAVE = np.full(160, 0.5, np.float32)


def said(folder: Path, label: str, *values: float | str | None) -> None:
    """A prompt each: its score, None where the judge failed, or why it cannot be decoded."""
    scored, waves = [], []
    for number, value in enumerate(values):
        found: Outcome = Scored(value, {"x": value}) if isinstance(value, float) else Failed("raised", "no")
        sample = Sample(
            Prompt(f"p{number}", str(folder / "a.wav"), "red", "en"), (1, 2), (0.0, 0.0), "", StopReason.EOS, 0
        )
        scored.append(ScoredSample(sample, found))
        waves.append(value if isinstance(value, str) else WAVE)
    write_speech(folder, label, scored, Sounds.of(waves))


def test_what_was_written_is_read_and_compared(tmp_path: Path) -> None:
    said(tmp_path, "before RL", 0.2, 0.4, None, "no tokens")
    said(tmp_path, "after RL", 0.6, 0.3, 0.9, 0.1)
    before, after = read_speech(tmp_path, "before RL"), read_speech(tmp_path, "after RL")
    assert before.mean("x") == pytest.approx(0.3)
    assert (before.mean("ended"), before.mean("unscored"), after.mean("unscored")) == (0.75, 0.5, 0.0)
    gap = difference(before, after, "x", 0.95, 1000)
    assert gap is not None
    assert gap.point == pytest.approx((0.6 - 0.2 + 0.3 - 0.4) / 2)
    # Won, lost, could not be told, and won unheard.
    duel = win_rate(before, after)
    assert duel is not None
    assert (duel.wins, duel.losses, duel.left_out, duel.rate.point) == (2, 1, 1, pytest.approx(2 / 3))


def test_a_table_stands_where_nothing_could_be_scored(tmp_path: Path) -> None:
    said(tmp_path, "before RL", 0.2, 0.4)
    said(tmp_path, "after RL", None, None)
    results = {label: read_speech(tmp_path, f"{label} RL") for label in ("before", "after")}
    assert win_rate(results["before"], results["after"]) is None
    lines = as_lines(table(results, "t", 0.95, 1000))
    assert any(line.split() == ["x", "0.300", "nan", "-"] for line in lines)
    assert any(line.split()[:3] == ["unscored", "0.000", "1.000"] for line in lines)
