"""The regression gate, with actors that are none and answer what lies in the checkpoint; the errors are counted for
real."""

import json
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from policies.speaking import SpeechLayout
from rlhf_platform.data.manifest import Row, write_manifest
from rlhf_platform.errors import RecipeError, RunError
from rlhf_platform.evaluation.gate_entries import GateEntry
from rlhf_platform.recipe.load import load_recipe
from rlhf_platform.tracking.progress import Display
from rlhf_platform.train import evaluate
from rlhf_platform.train.gate import hearing, run_gate
from rlhf_platform.types import Prompt, Sample, ScoredSample, StopReason
from tests.speaking import write_speaking_checkpoint

REFERENCES = {"one": "alpha bravo", "two": "charlie delta", "three": "echo"}


class Actors:
    """Rollout and reward actors in one."""

    evaluations: list[str]

    def __init__(self, *arguments: Any) -> None:
        self.model = str(arguments[3])

    def ready(self) -> None:
        pass

    def answer(self, prompts: Sequence[Prompt]) -> list[Sample]:
        Actors.evaluations.append(Path(self.model).name)
        said = json.loads(Path(self.model, "answers.json").read_text())
        return [Sample(p, (1, 2), (-1.0, -1.0), said[p.id], StopReason.EOS, 0) for p in prompts]

    def score(self, samples: Sequence[Sample], step: int) -> tuple[list[ScoredSample], None]:
        return [], None

    def evaluate(self, samples: Sequence[Sample]) -> list[ScoredSample]:
        return []


@pytest.fixture
def place(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Checkpoints `start` (no error) and `end` (one word of five wrong), recipes `asr.yaml` and `tts.yaml`."""
    for name in ("cluster", "placed"):
        monkeypatch.setattr(evaluate, name, lambda _: nullcontext())
    for name in ("Rollouts", "Rewards"):
        monkeypatch.setattr(evaluate, name, Actors)
    Actors.evaluations = []
    manifest = tmp_path / "m.jsonl"
    sf.write(tmp_path / "clip.wav", np.full(8_000, 0.1, np.float32), 16_000)
    rows = [
        Row(manifest, 1, name, tmp_path / "clip.wav", text, "en", "anna", 0.5, "heldout", "CC0-1.0")
        for name, text in REFERENCES.items()
    ]
    learnt = Row(manifest, 1, "learnt", tmp_path / "clip.wav", "foxtrot", "en", "bob", 0.5, "train", "CC0-1.0")
    write_manifest(manifest, [*rows, learnt])
    for name, answers in (("start", REFERENCES), ("end", {**REFERENCES, "one": "alpha beta"})):
        shutil.copytree(tiny_checkpoint, tmp_path / name)
        (tmp_path / name / "answers.json").write_text(json.dumps(answers))
    text = (
        f"name: NAME\nbranch: BRANCH\ndata: {{manifest: {manifest}}}\ncache_dir: {tmp_path}/cache\n"
        "rewards: [{fn: rewards.asr:wer_reward}]\nevaluation: {bootstrap_samples: 200, confidence: 0.9}\n"
    )
    for branch in ("asr", "tts"):
        (tmp_path / f"{branch}.yaml").write_text(text.replace("NAME", f"my-{branch}").replace("BRANCH", branch))
    return tmp_path


def test_a_fall_is_found_told_and_written_down(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    strict, loose = GateEntry(place / "asr.yaml", "wer", 0.19), GateEntry(place / "asr.yaml", "wer", 0.21)
    other = GateEntry(place / "asr.yaml", "wer", 0.0, set=("evaluation.max_clips=1",))
    start, end = str(place / "start"), str(place / "end")
    results = run_gate([strict, other, loose], start, end, place / "out", Display())
    # One word of five, in the second of three clips; `other` decodes the first, which is the one with the error.
    assert [(each.before, each.after, each.prompts, each.fell) for each in results] == [
        (0.0, 0.2, 3, True),
        (0.0, 0.5, 1, True),
        (0.0, 0.2, 3, False),
    ]
    assert results[0].difference.confidence == 0.9
    assert Actors.evaluations == ["start", "end", "start", "end"]
    said = json.loads((place / "out/gate.json").read_text())
    assert [each["passed"] for each in said["entries"]] == [False, False, True]
    assert [Path(folder).name for folder in results[0].evaluations] == ["my-asr-before-eval", "my-asr-after-eval"]
    assert "2 of 3 fell" in capsys.readouterr().out


def test_an_evaluation_is_done_again_only_for_other_weights_or_another_recipe(place: Path) -> None:
    entry, start, end = GateEntry(place / "asr.yaml", "wer"), str(place / "start"), str(place / "end")
    first = run_gate([entry], start, end, place / "out", Display())
    assert run_gate([entry], start, end, place / "out", Display()) == first
    assert Actors.evaluations == ["start", "end"]
    (place / "end/answers.json").write_text(json.dumps(dict.fromkeys(REFERENCES, "")))
    (again,) = run_gate([entry], start, end, place / "out", Display())
    assert (again.before, again.after) == (0.0, 1.0)
    assert Actors.evaluations == ["start", "end", "end"]
    run_gate([GateEntry(place / "asr.yaml", "wer", set=("seed=5",))], start, end, place / "out", Display())
    assert Actors.evaluations == ["start", "end", "end", "start", "end"]


def test_nothing_is_evaluated_before_all_recipes_and_checkpoints_were_looked_at(place: Path) -> None:
    good, start, end = GateEntry(place / "asr.yaml", "wer"), str(place / "start"), str(place / "end")
    with pytest.raises(RecipeError, match=r"my-tts is of branch tts: .*start has no speech\.json, nor has"):
        run_gate([good, GateEntry(place / "tts.yaml", "ended")], start, end, place / "out", Display())
    with pytest.raises(RecipeError, match="lr: unknown key"):
        run_gate([good, GateEntry(place / "asr.yaml", "wer", set=("lr=1",))], start, end, place / "out", Display())
    with pytest.raises(RunError, match="no model in it"):
        run_gate([good], start, str(place), place / "out", Display())
    write_speaking_checkpoint(place / "start", place / "speaks")
    # The recipe's codec has more entries than the 16 codec tokens of this vocabulary.
    with pytest.raises(RecipeError, match=r"speech\.codec is world"):
        run_gate([good, GateEntry(place / "tts.yaml", "ended")], str(place / "speaks"), end, place / "out", Display())
    assert Actors.evaluations == []


def test_what_speaks_is_heard_without_its_layout(place: Path) -> None:
    recipe = load_recipe(place / "asr.yaml").recipe
    write_speaking_checkpoint(place / "start", place / "speaks")
    view = hearing(recipe, str(place / "speaks"))
    assert SpeechLayout.read(view) is None
    assert SpeechLayout.read(place / "speaks") is not None
    assert {path.name for path in Path(view).iterdir()} == {path.name for path in (place / "start").iterdir()}
    assert hearing(recipe, str(place / "start")) == str(place / "start")
