"""The demo recipe as a user runs it, shrunken: pretrained Whisper on recorded prompts."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

RECIPE = Path(__file__).parents[2] / "recipes" / "asr" / "whisper_tiny.yaml"
CLIPS = 8


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What the run printed, and its folder."""
    place = tmp_path_factory.mktemp("whisper")
    keys = [f"cache_dir={place / 'cache'}", f"runs_dir={place / 'runs'}", "name=e2e", "steps=2"]
    keys += ["rollout.prompts_per_step=2", f"evaluation.max_clips={CLIPS}"]
    command = [sys.executable, "-m", "rlhf_platform.cli.main", "run", str(RECIPE), *keys]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout, place / "runs" / "e2e"


def test_rollout_and_learner_agree_throughout_and_on_the_saved_checkpoint(run: tuple[str, Path]) -> None:
    printed, folder = run
    assert json.loads((folder / "results.json").read_text())["max_logprob_diff"] < 1e-3
    differences = re.findall(r"mismatch \S+ before sync, (\S+) after", printed)
    assert len(differences) == 2
    assert max(map(float, differences)) < 1e-4
    assert "checkpoint: loaded in Transformers and served by vLLM" in printed.replace("\n", " ")


def test_a_pretrained_model_hears_the_recordings_before_it_learns(run: tuple[str, Path]) -> None:
    evaluation = json.loads((run[1] / "evaluation_before_RL.json").read_text())
    clean = [u["errors"] for u in evaluation["utterances"] if u["group"] == "clean"]
    errors = sum(e["substitutions"] + e["deletions"] + e["insertions"] for e in clean)
    assert errors < 0.3 * sum(e["reference_words"] for e in clean)


def test_the_same_clips_are_shown_before_and_after(run: tuple[str, Path]) -> None:
    _, folder = run
    rows = (folder / "examples.md").read_text().splitlines()[2:]
    assert len(rows) == CLIPS
    (path,) = folder.glob("wandb/offline-run-*/files/media/table/heldout_before_and_after_*.table.json")
    table = json.loads(path.read_text())
    assert table["columns"] == [
        "prompt", "group", "audio", "transcript", "before", "after", "wer_before", "wer_after",
    ]  # fmt: skip
    for row, line in zip(table["data"], rows, strict=True):
        assert f"`{row[0]}`" in line
    kept = [path for path in (folder / "wandb" / "data").rglob("*") if path.is_file()]
    assert sum(path.read_bytes().startswith(b"RIFF") for path in kept) >= CLIPS
    assert {row[1] for row in table["data"]} == {"clean", "telephone"}
    assert len(re.findall(r"clean|telephone", (folder / "report.txt").read_text())) >= 2
