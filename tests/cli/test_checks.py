"""What a recipe points at: functions, manifest, checkpoint, port, memory."""

import json
import socket
from pathlib import Path

import pytest

from rlhf_platform.cli.checks import load_checked
from rlhf_platform.errors import RecipeError

VALID = "name: a\ndata: {demo: digits}\nrewards: [{fn: rewards.asr:wer_reward}]\n"


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def refusals(*overrides: str) -> list[str]:
    Path("r.yaml").write_text(VALID)
    with pytest.raises(RecipeError) as raised:
        load_checked(Path("r.yaml"), overrides)
    return str(raised.value).splitlines()


def test_a_valid_recipe_passes() -> None:
    Path("r.yaml").write_text(VALID)
    load_checked(Path("r.yaml"))


def test_each_reward_that_does_not_resolve_is_named(tmp_path: Path) -> None:
    Path("mine.py").write_text("def brevity(sample): return 1.0\n")
    found = refusals("rewards=[{fn: rewards.asr:wer_rewad}, {fn: mine.py:brevit}, {fn: gone.py:f}]")
    assert len(found) == 3
    assert found[0].startswith("rewards[0].fn is 'rewards.asr:wer_rewad'")
    assert "'wer_reward'" in found[0]
    assert found[1].startswith("rewards[1].fn is ")
    assert "'brevity'" in found[1]
    assert found[2].startswith(f"rewards[2].fn is '{tmp_path}/gone.py:f'")


def test_keywords_that_a_reward_does_not_take_are_refused() -> None:
    Path("mine.py").write_text("def brevity(sample, cap=1.0): return cap\n")
    (line,) = refusals("rewards=[{fn: mine.py:brevity, kwargs: {cup: 2}}]")
    assert line.startswith("rewards[0]")
    assert "cup" in line


def test_bad_rows_of_the_manifest_are_told_beside_other_problems() -> None:
    Path("m.jsonl").write_text(json.dumps({"audio": "x.wav"}) + "\n")
    found = refusals("data.demo=null", "data.manifest=m.jsonl", "learner.zero_stage=4")
    assert found[0] == "learner.zero_stage is 4: allowed 0 to 3 (on the command line)"
    assert found[1].startswith("data.manifest is ")
    assert "row 1" in found[2]


def test_clips_longer_than_the_window_are_refused_before_anything_is_decoded() -> None:
    row = {"text": "hello there", "language": "en", "speaker": "a", "duration": 7.5, "licence": "CC0"}
    Path("x.wav").write_bytes(b"never read")
    texts = {"train": "hello there", "heldout": "good night", "spare": "not used"}
    rows = [row | {"audio": "x.wav", "id": s, "split": s, "text": text} for s, text in texts.items()]
    Path("m.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    found = refusals("data.demo=null", "data.manifest=m.jsonl", "backbone.window=5")
    assert [line.rpartition(": ")[2] for line in found] == [
        "2 rows have clips that are too long (on the command line)",
        *["x.wav lasts 7.500 s, longer than the window of 5 s"] * 2,
    ]


def test_long_form_lets_long_clips_of_the_held_out_split_through() -> None:
    row = {"text": "hello there", "language": "en", "speaker": "a", "duration": 7.5, "licence": "CC0", "audio": "x.wav"}
    Path("x.wav").write_bytes(b"never read")
    rows = [row | {"id": "t", "split": "train", "duration": 1.0}, row | {"id": "h", "split": "heldout", "text": "bye"}]
    Path("m.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    given = ["data.demo=null", "data.manifest=m.jsonl", "backbone.window=5", "evaluation.long_form=vad"]
    Path("r.yaml").write_text(VALID)
    load_checked(Path("r.yaml"), given)
    *_, row_said = refusals(*given, "data.train_split=heldout", "data.rl_split=heldout", "data.eval_split=train")
    assert row_said == "m.jsonl row 2: x.wav lasts 7.500 s, longer than the window of 5 s"


def test_a_checkpoint_that_is_none_is_refused(tmp_path: Path) -> None:
    Path("empty").mkdir()
    assert refusals("backbone.path=./gone") == [
        f"backbone.path is '{tmp_path}/gone': no such folder; give a folder or a hub name (owner/model) "
        "(on the command line)"
    ]
    assert refusals("backbone.path=empty") == [
        f"backbone.path is '{tmp_path}/empty': no config.json in it; name a Hugging Face checkpoint "
        "(on the command line)"
    ]


def test_a_port_that_is_taken_is_refused() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        assert refusals(f"learner.port={port}") == [
            f"learner.port is {port}: Address already in use; give another, or null for a free one "
            "(on the command line)"
        ]


def test_places_that_a_run_cannot_write_to_are_refused(tmp_path: Path) -> None:
    Path("file").touch()
    said = f"{tmp_path}/file is no folder that can be written; name another (on the command line)"
    assert refusals("runs_dir=file/runs", "cache_dir=file") == [
        f"runs_dir is 'file/runs': {said}",
        f"cache_dir is 'file': {said}",
    ]
    load_checked(Path("r.yaml"), ["runs_dir=file", "cluster.address=auto"])  # that is elsewhere
