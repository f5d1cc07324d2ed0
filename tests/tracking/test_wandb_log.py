"""Real offline runs of Weights & Biases: what is on disk afterwards. Nothing is sent."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile as sf

from rlhf_platform.data.audio import load_audio
from rlhf_platform.recipe.schema import TrackingConfig
from rlhf_platform.tracking.wandb_log import WandbLog
from rlhf_platform.types import Failed, Outcome, Prompt, Sample, Scored, ScoredSample, StopReason


def scored(prompt: Prompt, text: str, outcome: Outcome) -> ScoredSample:
    return ScoredSample(Sample(prompt, (1, 2), (-0.5, -0.1), text, StopReason.EOS, 3), outcome)


@pytest.fixture(scope="module")
def run(clips: list[Prompt], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished offline run with two tables."""
    folder = tmp_path_factory.mktemp("run")
    log = WandbLog(TrackingConfig(wandb="offline", table_rows=3), "asr", folder, {"name": "asr", "steps": 2}, "a1b2")
    log.metrics(1, {"reward": 0.25})
    samples = [
        scored(clips[0], "alpha", Scored(0.75, {"wer": 1.0, "brevity": -0.5})),
        scored(clips[1], "bravo", Failed("timeout", "no answer in 30 s", "judge")),
        scored(clips[2], "charlie", Scored(0.5, {"wer": 0.5})),
    ]
    log.samples(1, "heldout", samples)
    log.samples(2, "many", [scored(clips[i % 4], f"text {i}", Scored(float(i), {})) for i in range(12)])
    log.samples(2, "none", [])
    log.close(exit_code=0)
    return folder


def table(run: Path, name: str) -> list[dict]:
    (path,) = run.glob(f"wandb/offline-run-*/files/media/table/{name}_*.table.json")
    content = json.loads(path.read_text())
    return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]


def test_a_run_file_to_sync_later_is_left_in_the_runs_own_folder(run: Path) -> None:
    (file,) = run.glob("wandb/offline-run-*/*.wandb")
    assert file.stat().st_size > 0


def test_the_table_has_sound_transcript_hypothesis_and_every_reward_term(run: Path, clips: list[Prompt]) -> None:
    first, failed, third = table(run, "heldout")
    assert list(first) == [
        "prompt", "speaker", "audio", "transcript", "hypothesis", "reward", "brevity", "wer", "failure",
    ]  # fmt: skip
    assert (first["prompt"], first["speaker"], first["transcript"]) == ("clip0", "speaker0", "alpha")
    assert (first["hypothesis"], first["reward"], first["wer"], first["brevity"]) == ("alpha", 0.75, 1.0, -0.5)
    assert (third["reward"], third["wer"], third["brevity"], third["failure"]) == (0.5, 0.5, None, None)
    assert failed["hypothesis"] == "bravo"


def test_a_failed_reward_shows_its_failure_and_no_number(run: Path) -> None:
    failed = table(run, "heldout")[1]
    assert failed["failure"] == "judge: timeout: no answer in 30 s"
    assert [failed[name] for name in ("reward", "wer", "brevity")] == [None, None, None]


def test_the_clips_are_kept_with_the_run_to_be_synced_with_it(run: Path, clips: list[Prompt]) -> None:
    kept = [path.read_bytes() for path in (run / "wandb" / "data").rglob("*") if path.is_file()]
    sounds = [sf.read(io.BytesIO(content)) for content in kept if content.startswith(b"RIFF")]
    assert len(sounds) == 3 + 3
    for clip in (clips[0], clips[1], clips[2]):
        expected = load_audio(clip.audio)
        assert any(
            rate == 16_000 and len(samples) == len(expected) and abs(samples - expected).max() < 1e-3
            for samples, rate in sounds
        )


def test_a_large_evaluation_is_shown_in_part_and_evenly(run: Path) -> None:
    assert [row["hypothesis"] for row in table(run, "many")] == ["text 0", "text 4", "text 8"]
    assert not list(run.glob("wandb/offline-run-*/files/media/table/none_*"))


def test_off_does_nothing_and_imports_no_wandb(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from rlhf_platform.recipe.schema import TrackingConfig\n"
        "from rlhf_platform.tracking.wandb_log import WandbLog\n"
        "log = WandbLog(TrackingConfig(wandb='off'), 'asr', Path(sys.argv[1]), {}, 'a1b2')\n"
        "log.metrics(1, {'reward': 1.0}); log.samples(1, 'heldout', []); log.close(0)\n"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'wandb']\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)
    assert not list(tmp_path.iterdir())
