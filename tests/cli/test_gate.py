"""`rlhf gate` from the command line: exit codes, and what is checked before a model is looked at."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlhf_platform.cli.main import app
from rlhf_platform.evaluation.bootstrap import Interval
from rlhf_platform.evaluation.regression import GateResult
from rlhf_platform.train import gate

ROOT = Path(__file__).parents[2]


def written(folder: Path, metric: str) -> Path:
    path = folder / "gate.yaml"
    path.write_text(f"gate: [{{recipe: {ROOT / 'recipes/asr/quickstart.yaml'}, metric: {metric}}}]")
    return path


@pytest.mark.parametrize(("after", "code"), [(0.11, 0), (0.13, 1)])
def test_what_fell_is_exit_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: float, code: int) -> None:
    asked = []

    def evaluated(entries: list, before: str, end: str, out: Path, *_: object) -> list[GateResult]:
        asked.append((entries[0].metric, before, end, out))
        change = Interval(after - 0.1, 0.0, 0.1, 0.95)
        return [GateResult("a.yaml", "wer", False, 0.02, 0.1, after, change, 10, 0)]

    monkeypatch.setattr(gate, "run_gate", evaluated)
    arguments = ["gate", str(written(tmp_path, "wer")), "--before", "a", "--after", "b", "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(app, arguments).exit_code == code
    assert asked == [("wer", "a", "b", tmp_path / "out")]


def test_a_mistake_is_exit_code_2(tmp_path: Path) -> None:
    arguments = ["gate", str(written(tmp_path, "bleu")), "--before", "a", "--after", "b"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "quickstart.yaml: metric is 'bleu': the evaluation of asr-quickstart does not measure it" in result.stderr
