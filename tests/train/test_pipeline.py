"""Runs of one file: what is run, what is skipped, and what an earlier stage hands on."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlhf_platform.errors import RecipeError
from rlhf_platform.recipe.load import LoadedRecipe, load_recipe
from rlhf_platform.recipe.pipeline import PipelineStage, is_pipeline, load_pipeline
from rlhf_platform.train import pipeline as pipelines

STAGE = "name: {name}\ndata: {{demo: digits}}\nrewards: [{{fn: rewards.asr:wer_reward}}]\n"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(STAGE.format(name=name))
    file = tmp_path / "all.yaml"
    file.write_text(
        "name: all\nstages:\n  - {name: one, recipe: one.yaml}\n"
        '  - {name: two, recipe: two.yaml, set: ["backbone.path={one}/checkpoint", steps=3]}\n'
    )
    return file


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None, int]]:
    """Name, backbone and steps of the runs, which leave a finished folder and do nothing."""
    found: list[tuple[str, str | None, int]] = []

    def begin(loaded: LoadedRecipe, name: str, steps: int) -> tuple[LoadedRecipe, Any]:
        folder = Path(loaded.recipe.runs_dir, name)
        folder.mkdir(parents=True)
        return loaded, SimpleNamespace(path=folder)

    def carry_out(loaded: LoadedRecipe, run: Any, start: None) -> None:
        folder = run.path
        found.append((folder.name, loaded.recipe.backbone.path, loaded.recipe.steps))
        (folder / "status.json").write_text('{"state": "finished", "step": 0, "steps": 0}')
        (folder / "recipe.yaml").write_text(loaded.yaml)

    monkeypatch.setattr(pipelines, "begin", begin)
    monkeypatch.setattr(pipelines, "carry_out", carry_out)
    return found


def load(stage: PipelineStage, filled: Sequence[str]) -> LoadedRecipe:
    return load_recipe(stage.recipe, filled)


def test_a_stage_is_given_what_the_one_before_it_made(path: Path, ran: list[Any]) -> None:
    assert is_pipeline(path)
    assert not is_pipeline(path.parent / "one.yaml")
    pipelines.run_pipeline(load_pipeline(path), load)
    (first, _, _), (second, backbone, steps) = ran
    assert (first[:4], second[:4], steps) == ("one-", "two-", 3)
    assert backbone == str((path.parent / "runs" / "all" / first / "checkpoint").resolve())


def test_a_stage_runs_once_and_again_when_it_or_one_before_it_changes(path: Path, ran: list[Any]) -> None:
    for overrides, runs in (([], 2), ([], 2), (["two:steps=4"], 3), (["one:seed=1"], 5), (["one:seed=1"], 5)):
        pipelines.run_pipeline(load_pipeline(path, overrides), load)
        assert len(ran) == runs, overrides


def test_a_stage_that_was_cut_off_is_begun_anew(path: Path, ran: list[Any]) -> None:
    pipelines.run_pipeline(load_pipeline(path), load)
    folder = path.parent / "runs" / "all" / ran[1][0]
    (folder / "status.json").write_text('{"state": "failed", "step": 1, "steps": 3}')
    (folder / "half").write_text("")
    pipelines.run_pipeline(load_pipeline(path), load)
    assert [name for name, *_ in ran] == [ran[0][0], ran[1][0], ran[1][0]]
    assert not (folder / "half").exists()


def test_overrides_are_of_the_pipeline_of_a_stage_or_of_all(path: Path) -> None:
    found = load_pipeline(path, ["name=b", "runs_dir=elsewhere", "two:steps=5", "seed=2"])
    assert (found.folder, [stage.overrides for stage in found.stages]) == (
        Path("elsewhere/b"),
        [("seed=2",), ("backbone.path={one}/checkpoint", "steps=3", "steps=5", "seed=2")],
    )
    with pytest.raises(RecipeError, match="override 'three:steps=1': no stage 'three'; there is one, two"):
        load_pipeline(path, ["three:steps=1"])


def test_what_no_stage_has_made_yet_is_left_out_of_the_check_before(path: Path) -> None:
    assert load_pipeline(path).stages[1].unfilled() == ["steps=3"]
    assert load_pipeline(path).stages[1].needs == ("one",)


def test_a_stage_runs_again_when_its_reward_or_its_manifest_was_edited(path: Path, ran: list[Any]) -> None:
    reward, manifest = path.parent / "mine.py", path.parent / "m.jsonl"
    (path.parent / "one.yaml").write_text("name: one\ndata: {manifest: m.jsonl}\nrewards: [{fn: mine.py:f}]\n")
    for file, text, runs in (
        (reward, "1", 2),
        (manifest, "1", 2),
        (reward, "2", 4),
        (manifest, "2", 6),
        (reward, "2", 6),
    ):
        file.write_text(text)
        if manifest.exists():
            pipelines.run_pipeline(load_pipeline(path), load)
            assert len(ran) == runs


SPOKEN = """\
name: {name}
branch: tts
data: {{demo: speech}}
speech: {{codebooks: 2}}
backbone: {{tiny: {{audio_slots: 1024}}}}
rewards: [{{fn: rewards.tts:ended}}]
evaluation: {{rewards: [{{fn: rewards.tts:f0_spread}}], temperature: 0.8}}
"""


@pytest.mark.parametrize(
    ("override", "handed_on"),
    [("steps=3", True), ("steps=0", False), ("sft.steps=2", False), ("evaluation.temperature=1", False)],
)
def test_a_stage_does_not_measure_again_what_the_one_before_ended_with(
    override: str, handed_on: bool, path: Path, ran: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        (path.parent / f"{name}.yaml").write_text(SPOKEN.format(name=name))
    carry_out: Any = pipelines.carry_out

    def speaks(loaded: LoadedRecipe, run: Any, start: None) -> None:
        carry_out(loaded, run, start)
        if loaded.recipe.name.startswith("one"):
            (run.path / "speech" / "after_RL").mkdir(parents=True)
            (run.path / "speech" / "after_RL" / "0000.wav").write_text("")
            (run.path / "speech_after_RL.jsonl").write_text('{"wav": "speech/after_RL/0000.wav"}')

    monkeypatch.setattr(pipelines, "carry_out", speaks)
    monkeypatch.setattr(pipelines, "_report", lambda *_: None)
    pipelines.run_pipeline(load_pipeline(path, [f"two:{override}"]), load)
    folder = path.parent / "runs" / "all" / ran[1][0]
    file = folder / "speech_before_RL.jsonl"
    assert file.is_file() == handed_on
    if handed_on:
        assert (folder / json.loads(file.read_text())["wav"]).is_file()


def test_a_stage_runs_again_when_what_it_learns_beside_was_edited(path: Path, ran: list[Any]) -> None:
    (path.parent / "one.yaml").write_text(STAGE.format(name="one") + "sft: {steps: 1, beside: spoken.yaml}\n")
    for text, runs in (("name: a", 2), ("name: a", 2), ("name: b", 4)):
        (path.parent / "spoken.yaml").write_text(text)
        pipelines.run_pipeline(load_pipeline(path), load)
        assert len(ran) == runs
