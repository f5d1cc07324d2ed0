import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from rlhf_platform.data.manifest import (
    check_audio,
    check_splits,
    of_split,
    read_manifest,
    to_prompt,
    write_manifest,
)
from rlhf_platform.errors import DataError
from rlhf_platform.types import Prompt


def values(folder: Path, name: str = "a.wav", **changes: Any) -> dict[str, Any]:
    """A good row, half a second long, with its audio file; `changes` replace values."""
    if not (folder / name).exists():
        sf.write(folder / name, np.zeros(8_000, np.int16), 16_000)
    good = {"audio": name, "text": "alpha seven", "language": "en", "speaker": "anna"}
    return good | {"duration": 0.5, "split": "train", "licence": "CC0-1.0"} | changes


def manifest(folder: Path, *rows: Any) -> Path:
    path = folder / "manifest.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_a_row_is_read_with_every_key(tmp_path: Path) -> None:
    row = values(tmp_path, id="one", sample_rate=16_000, metadata={"room": "small"})
    [read] = read_manifest(manifest(tmp_path, row))
    assert (read.id, read.audio, read.text, read.speaker) == (
        "one",
        tmp_path / "a.wav",
        "alpha seven",
        "anna",
    )
    assert (read.duration, read.split, read.licence, read.sample_rate) == (0.5, "train", "CC0-1.0", 16_000)
    assert to_prompt(read) == Prompt(
        "one", str(tmp_path / "a.wav"), "alpha seven", "en", "anna", 0.5, {"room": "small"}
    )


def test_the_id_defaults_to_the_audio_path(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    [read] = read_manifest(manifest(tmp_path, values(tmp_path, "clips/a.wav")))
    assert read.id == "clips/a"


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    rows = read_manifest(
        manifest(tmp_path, values(tmp_path, id="ä", metadata={"n": [1]}), values(tmp_path, "b.wav", duration=1))
    )
    (tmp_path / "elsewhere").mkdir()
    other = tmp_path / "elsewhere" / "manifest.jsonl"
    write_manifest(other, rows)
    assert '"audio": "../a.wav"' in other.read_text()
    again = read_manifest(other)
    assert [(r.id, r.audio.resolve(), r.metadata) for r in again] == [(r.id, r.audio, r.metadata) for r in rows]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"license": "x"}, "unknown key 'license'; did you mean 'licence'?"),
        ({"zzz": 1}, "unknown key 'zzz'; put what is yours under metadata"),
        ({"text": " "}, 'text is empty; if the clip has no speech, say so with "metadata": {"speech": false}'),
        ({"text": "", "metadata": {"speech": 0}}, "text is empty"),
        ({"text": "?!"}, "text '?!' has no letter or digit"),
        ({"speaker": 7}, "speaker is text, not whole number 7"),
        ({"duration": "0.5"}, "duration is number, not text '0.5'"),
        ({"duration": True}, "duration is number, not true/false True"),
        ({"duration": 0}, "duration 0 s; it must be above 0"),
        ({"duration": float("nan")}, "duration nan s; it must be above 0"),
        ({"sample_rate": 0}, "sample_rate 0 Hz; it must be above 0"),
        ({"sample_rate": 16000.5}, "sample_rate is whole number, not number 16000.5"),
        ({"metadata": []}, "metadata is object, not list []"),
        ({"language": None}, "language is text, not null None"),
        ({"audio": "gone.wav"}, "audio 'gone.wav' does not exist"),
    ],
)
def test_a_bad_value_is_refused_by_row(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = manifest(tmp_path, values(tmp_path), values(tmp_path, "b.wav", **changes))
    with pytest.raises(DataError) as error:
        read_manifest(path)
    first, second = str(error.value).splitlines()
    assert first == f"{path}: 1 row cannot be used"
    assert second.startswith(f"manifest.jsonl row 2: {message}")


@pytest.mark.parametrize(
    ("line", "message"),
    [("{", "not JSON"), ("[1]", "a row is a JSON object, not list"), ('{"audio": "a.wav"}', "no 'text'")],
)
def test_a_line_that_is_no_row_is_refused(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(DataError, match=f"manifest.jsonl row 1: {message}"):
        read_manifest(manifest(tmp_path, line))


def test_bytes_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    path = manifest(tmp_path, values(tmp_path))
    path.write_bytes(path.read_bytes() + b'{"text": "\xff"}\n')
    with pytest.raises(DataError, match=r"manifest\.jsonl row 2: not UTF-8"):
        read_manifest(path)


def test_an_id_given_twice_is_refused(tmp_path: Path) -> None:
    path = manifest(tmp_path, values(tmp_path, id="x"), "", values(tmp_path, "b.wav", id="x"))
    with pytest.raises(DataError, match=r"row 3: id 'x' is already that of row 1"):
        read_manifest(path)


def test_all_bad_rows_are_counted_and_ten_are_shown(tmp_path: Path) -> None:
    rows = [values(tmp_path, id=str(n), speaker="") for n in range(12)]
    with pytest.raises(DataError) as error:
        read_manifest(manifest(tmp_path, *rows))
    lines = str(error.value).splitlines()
    assert lines[0].endswith("12 rows cannot be used")
    assert lines[1:11] == [f"manifest.jsonl row {n}: speaker is empty" for n in range(1, 11)]
    assert lines[11:] == ["... and 2 more"]


def test_a_manifest_that_is_missing_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such manifest"):
        read_manifest(tmp_path / "gone.jsonl")
    with pytest.raises(DataError, match=r"manifest\.jsonl: empty"):
        read_manifest(manifest(tmp_path, "", " "))


def test_a_split_without_rows_is_refused(tmp_path: Path) -> None:
    rows = read_manifest(manifest(tmp_path, values(tmp_path)))
    assert of_split(rows, "train") == rows
    with pytest.raises(DataError, match="no row has split 'heldout'; it has train"):
        check_splits(rows)


def test_held_out_text_that_is_trained_on_is_refused(tmp_path: Path) -> None:
    rows = read_manifest(
        manifest(
            tmp_path,
            values(tmp_path, "a.wav"),
            values(tmp_path, "b.wav", split="heldout", text="bravo"),
            values(tmp_path, "c.wav", split="heldout", text=" Alpha  SEVEN!"),
        )
    )
    with pytest.raises(DataError) as error:
        check_splits(rows)
    first, second = str(error.value).splitlines()
    assert first.endswith("1 row of split 'heldout' with training text")
    assert second.startswith("manifest.jsonl row 3: text ' Alpha  SEVEN!' is in split 'train' too, at row 1")


def test_clips_without_speech_have_an_empty_text_in_any_split(tmp_path: Path) -> None:
    noise = {"text": "", "metadata": {"speech": False}}
    rows = read_manifest(
        manifest(
            tmp_path,
            values(tmp_path, "a.wav"),
            values(tmp_path, "b.wav", **noise),
            values(tmp_path, "c.wav", split="heldout", **noise),
            values(tmp_path, "d.wav", split="heldout", **noise | {"text": "..."}),
        )
    )
    assert [row.text for row in rows] == ["alpha seven", "", "", "..."]
    check_splits(rows)
    other = tmp_path / "again.jsonl"
    write_manifest(other, rows)
    assert [(row.text, row.metadata) for row in read_manifest(other)] == [(row.text, row.metadata) for row in rows]


def test_good_audio_passes_and_progress_is_told(tmp_path: Path) -> None:
    rows = read_manifest(
        manifest(tmp_path, values(tmp_path, sample_rate=16_000), values(tmp_path, "b.wav", duration=0.519))
    )
    told: list[tuple[int, int]] = []
    check_audio(rows, window=0.5, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]


def test_clips_of_the_long_split_may_be_longer_than_the_window(tmp_path: Path) -> None:
    rows = read_manifest(manifest(tmp_path, values(tmp_path), values(tmp_path, "b.wav", split="heldout")))
    check_audio([rows[1]], window=0.4, long_split="heldout")
    with pytest.raises(DataError, match=r"row 1: a\.wav lasts 0\.500 s, longer than the window of 0\.4 s"):
        check_audio(rows, window=0.4, long_split="heldout")


def test_every_clip_with_bad_audio_is_named(tmp_path: Path) -> None:
    good = values(tmp_path)
    sf.write(tmp_path / "long.wav", np.zeros(16_001, np.int16), 16_000)
    sf.write(tmp_path / "nan.wav", np.full(8_000, np.nan, np.float32), 16_000, subtype="FLOAT")
    (tmp_path / "cut.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:8_000])
    (tmp_path / "text.wav").write_text("no audio in here, only words")
    rows = read_manifest(
        manifest(
            tmp_path,
            good,
            values(tmp_path, "rate.wav", sample_rate=8_000),
            values(tmp_path, "duration.wav", duration=0.521),
            values(tmp_path, "long.wav", duration=1.0),
            values(tmp_path, "nan.wav"),
            values(tmp_path, "cut.wav"),
            values(tmp_path, "text.wav"),
        )
    )
    with pytest.raises(DataError) as error:
        check_audio(rows, window=1.0)
    lines = str(error.value).splitlines()
    assert lines[0].endswith("6 rows have audio that cannot be used")
    for line, row, text in zip(
        lines[1:],
        range(2, 8),
        [
            "sample_rate 8000 Hz, but rate.wav is at 16000 Hz",
            "duration 0.521 s, but duration.wav lasts 0.500 s",
            "long.wav lasts 1.000 s, longer than the window of 1 s",
            "samples are NaN or infinite",
            "cut short",
            "not readable as audio",
        ],
        strict=True,
    ):
        assert line.startswith(f"manifest.jsonl row {row}: ")
        assert text in line


def test_checking_a_manifest_imports_no_torch(tmp_path: Path) -> None:
    path = manifest(tmp_path, values(tmp_path))
    code = (
        "import sys; from rlhf_platform.data.manifest import *;"
        f"check_audio(read_manifest({str(path)!r}), 4.0); sys.exit('torch' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
