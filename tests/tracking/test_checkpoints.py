"""Checkpoints: whole or absent, the newest and the best kept, damage found."""

from pathlib import Path

import pytest

from rlhf_platform.recipe.schema import CheckpointConfig
from rlhf_platform.tracking.checkpoints import Checkpoints


def write(checkpoints: Checkpoints, step: int, score: float = 0.0) -> None:
    with checkpoints.writing(step, score) as draft:
        (draft / "policy").mkdir()
        (draft / "policy" / "weights").write_bytes(bytes([step]) * 100)
        (draft / "state.json").write_text(f'{{"step": {step}}}')


def steps(checkpoints: Checkpoints) -> list[int]:
    return [checkpoint.step for checkpoint in checkpoints.complete()]


def test_a_checkpoint_whose_writing_fails_is_not_there(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    write(checkpoints, 1)

    def fail() -> None:
        with checkpoints.writing(2, 0.0) as draft:
            (draft / "half").write_text("x")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert steps(checkpoints) == [1]
    checkpoints.forget_unfinished()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00001"]


def test_the_newest_that_is_sound_is_found_and_the_damage_of_newer_ones_told(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2, 3):
        write(checkpoints, step)
    folder = tmp_path / "checkpoints"
    (folder / "step-00003" / "policy" / "weights").write_bytes(bytes([4]) * 100)
    (folder / "step-00002" / "state.json").unlink()
    found, damaged = checkpoints.newest_sound()
    assert found is not None
    assert (found.step, found.state(), found.policy) == (1, {"step": 1}, folder / "step-00001/policy")
    assert damaged == [
        f"checkpoint {folder}/step-00003 is damaged: policy/weights is not what was written",
        f"checkpoint {folder}/step-00002 is damaged: state.json is missing",
    ]
    assert Checkpoints(tmp_path / "nowhere").newest_sound() == (None, [])


def test_the_last_ones_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step, score in enumerate([0.1, 0.9, 0.3, float("-inf"), 0.2], start=1):
        write(checkpoints, step, score)
        checkpoints.prune(CheckpointConfig(keep_last=2, keep_best=1))
    assert steps(checkpoints) == [2, 4, 5]
    checkpoints.prune(CheckpointConfig(keep_last=1, keep_best=0))
    assert steps(checkpoints) == [5]


def test_a_step_that_is_come_by_again_replaces_its_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    write(checkpoints, 1, 0.5)
    write(checkpoints, 1, 0.7)
    assert [checkpoint.score for checkpoint in checkpoints.complete()] == [0.7]
