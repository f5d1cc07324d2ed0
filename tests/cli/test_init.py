"""`rlhf init`: what it writes is valid from anywhere, and nothing is overwritten."""

import runpy
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rewards.types import RewardInput
from rlhf_platform.cli.main import app
from rlhf_platform.recipe.load import load_recipe
from rlhf_platform.recipe.schema import Recipe
from tests.runs import write_data

runner = CliRunner()


@pytest.fixture(autouse=True)
def _local_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_what_is_written_is_valid_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = runner.invoke(app, ["init", "--branch", "asr", "--out", "a/b"])
    assert made.exit_code == 0, made.stderr
    assert sorted(path.name for path in Path("a/b").iterdir()) == ["my_rewards.py", "recipe.yaml"]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    valid = runner.invoke(app, ["validate", "../a/b/recipe.yaml"])
    assert valid.exit_code == 0, valid.stderr
    assert "0.2 x brevity" in valid.stdout


def test_the_commands_that_it_prints_name_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    printed = runner.invoke(app, ["init", "--branch", "asr", "--out", "my asr", "--name", "first"]).stdout
    assert "rlhf validate 'my asr/first.yaml'\n" in printed
    assert "rlhf run 'my asr/first.yaml' " in printed
    assert "runs/first/report.txt" in printed
    assert load_recipe("my asr/first.yaml").recipe.name == "first"


def test_its_comments_lead_to_data_of_ones_own(tmp_path: Path) -> None:
    assert runner.invoke(app, ["init", "--branch", "asr", "--out", str(tmp_path)]).exit_code == 0
    recipe = tmp_path / "recipe.yaml"
    write_data(tmp_path).rename(tmp_path / "my.jsonl")
    lines = [line for line in recipe.read_text().splitlines() if not line.startswith("  demo:")]
    recipe.write_text("\n".join(lines).replace("# manifest: my.jsonl ", "manifest: my.jsonl "))
    assert load_recipe(recipe).recipe.data.manifest == str(tmp_path / "my.jsonl")
    # The four clips say that they last 15 minutes, and nothing else is wrong with them.
    assert "longer than the window" in runner.invoke(app, ["validate", str(recipe)]).stderr


def test_its_reward_runs_by_itself_and_answers_as_it_says(tmp_path: Path) -> None:
    assert runner.invoke(app, ["init", "--branch", "asr", "--out", str(tmp_path)]).exit_code == 0
    brevity = runpy.run_path(str(tmp_path / "my_rewards.py"))["brevity"]
    texts = ("a b c d e", "a b c d e f", "a b c d e f g h i j", "a " * 50)
    assert [brevity(RewardInput("x", text, duration=1.0)) for text in texts] == pytest.approx([0.0, -0.2, -1.0, -1.0])
    with pytest.raises(ValueError, match="no duration"):
        brevity(RewardInput("x", "a"))
    command = [sys.executable, str(tmp_path / "my_rewards.py")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert printed.splitlines() == ["+0.00  press one", "-0.60  press one press one press one press one"]


@pytest.mark.parametrize("taken", ["recipe.yaml", "my_rewards.py"])
def test_nothing_is_overwritten_and_nothing_else_written(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_text("mine")
    result = runner.invoke(app, ["init", "--branch", "asr", "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"{tmp_path / taken}: there already")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_an_unknown_branch_a_bad_name_and_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for arguments, message in (
        (["--branch", "tts"], "--branch is 'tts': allowed asr"),
        (["--branch", "asr", "--name", "../x"], "--name is '../x': it names files"),
        (["--branch", "asr", "--out", str(tmp_path / "file" / "x")], "--out is "),
    ):
        result = runner.invoke(app, ["init", *arguments])
        assert (result.exit_code, result.stderr.startswith(message)) == (2, True), result.stderr


def test_each_template_is_of_a_branch_that_recipes_know() -> None:
    templates = files("rlhf_platform.cli") / "templates"
    branches = {entry.name.removesuffix(".yaml") for entry in templates.iterdir() if entry.name.endswith(".yaml")}
    known = Recipe.__dataclass_fields__["branch"].metadata["choices"]
    assert branches <= set(known)
