import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rlhf_platform.tracking.run_dir import RunDir
from rlhf_platform.types import Failed, Prompt, Sample, ScoredSample, StopReason


def read_status(run: RunDir) -> dict:
    return json.loads((run.path / "status.json").read_text())


def test_a_name_that_is_taken_gets_a_number_and_overwrites_nothing(tmp_path: Path) -> None:
    first = RunDir.create(tmp_path / "runs", "asr", 3)
    first.write("recipe.yaml", "name: asr\n")
    others = [RunDir.create(tmp_path / "runs", "asr", 3), RunDir.create(tmp_path / "runs", "asr", 3)]
    assert [run.path.name for run in (first, *others)] == ["asr", "asr-2", "asr-3"]
    assert (first.path / "recipe.yaml").read_text() == "name: asr\n"
    assert [path.name for path in others[0].path.iterdir()] == ["lock"]
    assert first.checkpoint == first.path / "checkpoint"
    assert not first.checkpoint.exists()


def test_runs_started_at_the_same_time_get_a_folder_each(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        paths = [run.path for run in pool.map(lambda _: RunDir.create(tmp_path, "asr", 3), range(16))]
    assert len(set(paths)) == 16


def test_the_path_stays_when_the_working_folder_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = RunDir.create(Path("runs"), "asr", 3)
    monkeypatch.chdir("/")
    run.status()
    assert run.path == tmp_path / "runs" / "asr"


def test_status_keeps_what_was_said_before(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, "asr", 3)
    run.status()
    start = read_status(run)
    assert (start["state"], start["phase"], start["step"]) == ("running", "start", 0)
    run.status(phase="rl")
    run.status(step=3)
    run.status(state="failed", error="cores: 2")
    end = read_status(run)
    assert (end["state"], end["phase"], end["step"], end["error"]) == ("failed", "rl", 3, "cores: 2")
    assert end["started"] == start["started"] <= start["updated"] <= end["updated"]


def test_a_status_that_cannot_be_written_leaves_the_last_one_whole(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, "asr", 3)
    run.status(step=1)
    with pytest.raises(TypeError):
        run.status(step=object())
    assert read_status(run)["step"] == 1


def test_metrics_are_one_json_object_a_step(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, "asr", 3)
    run.step(1, {"reward": 0.5, "kl": 1e-9}, ["a", "b"])
    run.step(2, {"reward": float("nan")}, [])
    first, second = map(json.loads, (run.path / "metrics.jsonl").read_text().splitlines())
    assert (first["step"], first["reward"], first["kl"]) == (1, 0.5, 1e-9)
    assert second["reward"] != second["reward"]
    assert second["time"] >= first["time"]


def test_each_failed_sample_is_a_line_with_what_a_person_needs_and_goes_with_its_step(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, "asr", 3)
    prompt = Prompt("p1", "clips/a.flac", "alpha", "en")
    sample = Sample(prompt, (1,), (-0.5,), "bravo", StopReason.EOS, 1)
    late = ScoredSample(sample, Failed("timeout", "no answer within 30 s", "judge"))
    for step, failed in ((1, []), (2, [late]), (3, [late, late])):
        run.step(step, {"reward": 1.0}, ["p1"], failed)
    written = [json.loads(line) for line in (run.path / "failures.jsonl").read_text().splitlines()]
    assert [row.pop("step") for row in written] == [2, 3, 3]
    assert written[0] == {
        "reward": "judge",
        "kind": "timeout",
        "message": "no answer within 30 s",
        "prompt": "p1",
        "audio": "clips/a.flac",
        "reference": "alpha",
        "text": "bravo",
    }
    run.rewind(2, 3)
    assert len((run.path / "failures.jsonl").read_text().splitlines()) == 1
