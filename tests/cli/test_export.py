"""`rlhf export` from the command line."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlhf_platform.cli.main import app
from tests.runs import write_run

runner = CliRunner()


def test_export_by_name_and_its_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = write_run(tmp_path / "elsewhere" / "first")
    (run / "checkpoint").mkdir()
    (run / "checkpoint" / "config.json").write_text("{}")
    arguments = ["export", "first", "--to", "out", "--runs", "elsewhere"]
    made = runner.invoke(app, arguments)
    assert (made.exit_code, made.stdout) == (0, "out: model and card; read out/README.md before you pass it on\n")
    again = runner.invoke(app, arguments)
    assert (again.exit_code, again.stderr) == (
        2,
        "--to is 'out': it is not empty; name a new folder, nothing is overwritten\n",
    )
    assert runner.invoke(app, [*arguments, "--adapter", "lost"]).exit_code == 2
    kept = runner.invoke(app, ["export", "first", "--to", "out2", "--runs", "elsewhere", "--adapter", "kept"])
    assert kept.exit_code == 2
    assert "learner.lora.rank is 0" in kept.stderr
    assert not Path("out2").exists()
