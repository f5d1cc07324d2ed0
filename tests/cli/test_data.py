"""`rlhf data join`, and what `rlhf data check` lets through for long-form evaluation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from typer.testing import CliRunner

from rlhf_platform.cli.main import app
from rlhf_platform.data.manifest import Row, of_split, read_manifest, write_manifest


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Four held-out clips of a second and one to learn from."""
    path, rows = tmp_path / "m.jsonl", []
    for number in range(5):
        audio = tmp_path / f"{number}.wav"
        sf.write(audio, np.full(16_000, 99, np.int16), 16_000)
        rows.append(Row(path, number, f"c{number}", audio, f"word {number}", "en", "anna", 1.0, "heldout", "CC0-1.0"))
    write_manifest(path, [*rows[:4], replace(rows[4], split="train")])
    return path


def rlhf(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["data", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_join_prints_the_manifest_of_the_recordings(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "long"
    assert rlhf("join", manifest, out, "--seconds", 60, "--seed", 3) == (0, f"{out}/manifest.jsonl\n", "")
    (recording,) = of_split(read_manifest(out / "manifest.jsonl"), "heldout")
    assert sorted(recording.metadata["clips"]) == ["c0", "c1", "c2", "c3"]
    assert 4 + 3 * 0.3 <= recording.duration <= 4 + 3 * 1.5


def test_join_of_another_split(manifest: Path, tmp_path: Path) -> None:
    assert rlhf("join", manifest, tmp_path / "long", "--split", "train")[0] == 0
    (recording,) = of_split(read_manifest(tmp_path / "long/manifest.jsonl"), "train")
    assert recording.metadata["clips"] == ["c4"]


def test_join_into_a_file_is_a_plain_refusal(manifest: Path) -> None:
    code, _, said = rlhf("join", manifest, manifest / "long")
    assert (code, said) == (
        2,
        f"OUT is '{manifest}/long': File exists; name a folder that can be written\n",
    )


def test_check_lets_one_split_have_long_clips(manifest: Path, tmp_path: Path) -> None:
    rlhf("join", manifest, tmp_path / "long")
    long = tmp_path / "long/manifest.jsonl"
    code, _, said = rlhf("check", long, "--window", 4)
    assert code == 2
    assert "longer than the window of 4 s" in said
    code, printed, _ = rlhf("check", long, "--window", 4, "--long-split", "heldout")
    assert code == 0
    assert printed.endswith("hours, none over 4 s but in split heldout\n")
    assert rlhf("check", long, "--window", 0.5, "--long-split", "heldout")[0] == 2
