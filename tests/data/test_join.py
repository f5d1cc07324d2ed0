"""Long recordings made of short clips whose every sample is known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from rlhf_platform.data.audio import load_audio
from rlhf_platform.data.join import arranged, join
from rlhf_platform.data.manifest import Row, check_audio, of_split, read_manifest, write_manifest
from rlhf_platform.errors import DataError

RATE = 16_000


def source(folder: Path, count: int = 9, **changes: object) -> Path:
    """`count` held-out clips of 1.0, 1.1, ... s whose samples are their number, and one clip to learn from."""
    folder.mkdir(exist_ok=True)
    manifest, rows = folder / "manifest.jsonl", []
    for number in range(count + 1):
        audio, length = folder / f"{number}.wav", RATE + 1_600 * number
        sf.write(audio, np.full(length, 100 * (number + 1), np.int16), RATE)
        split = "heldout" if number < count else "train"
        row = Row(manifest, number, f"c{number}", audio, f"word{number}", "en", "anna", length / RATE, split, "CC0-1.0")
        rows.append(replace(row, **changes) if split == "heldout" else row)  # type: ignore[arg-type]
    write_manifest(manifest, rows)
    return manifest


def long_rows(manifest: Path) -> list[Row]:
    return of_split(read_manifest(manifest), "heldout")


def test_every_clip_is_whole_in_one_recording_with_pauses_between(tmp_path: Path) -> None:
    rows = long_rows(join(source(tmp_path / "in"), tmp_path / "out", seconds=6.0))
    used = [name for row in rows for name in row.metadata["clips"]]
    assert sorted(used) == [f"c{n}" for n in range(9)]
    for row in rows:
        assert row.text.split() == [name.replace("c", "word") for name in row.metadata["clips"]]
        samples, place = load_audio(row.audio), 0
        assert (row.duration, row.sample_rate) == (len(samples) / RATE, RATE)
        assert row.duration <= 6.0
        for name in row.metadata["clips"]:
            clip = load_audio(tmp_path / "in" / f"{name[1:]}.wav")
            pause = int(np.argmax(samples[place:] != 0))
            assert pause == 0 if place == 0 else 0.3 * RATE <= pause <= 1.5 * RATE
            place += pause
            np.testing.assert_array_equal(samples[place : place + len(clip)], clip)
            place += len(clip)
        assert place == len(samples)


def test_a_recording_has_no_room_for_the_next_clip(tmp_path: Path) -> None:
    """Otherwise it would be shorter than asked for. The next clip begins a recording, after no pause."""
    rows = read_manifest(source(tmp_path / "in"))[:9]
    recordings = arranged(rows, 6.0, np.random.default_rng(0))
    lengths = [sum(c.duration for c in clips) + sum(pauses) / RATE for clips, pauses in recordings]
    for length, (clips, _) in zip(lengths, recordings[1:], strict=False):
        assert length + clips[0].duration + 1.5 > 6.0


def test_the_other_rows_stay_and_all_passes_the_check(tmp_path: Path) -> None:
    before = read_manifest(source(tmp_path / "in"))
    after = read_manifest(join(before[0].manifest, tmp_path / "out", seconds=6.0))
    kept = [(r.id, r.audio.resolve(), r.text, r.split) for r in after if r.split == "train"]
    assert kept == [(r.id, r.audio, r.text, r.split) for r in before if r.split == "train"]
    assert [r.id for r in after if r.split == "heldout"][:2] == ["heldout-long-0001", "heldout-long-0002"]
    assert {r.licence for r in after} == {"CC0-1.0"}
    check_audio(after, window=6.0)


def test_the_seed_decides_order_and_pauses(tmp_path: Path) -> None:
    manifest = source(tmp_path / "in")
    folders = {
        name: join(manifest, tmp_path / name, seconds=6.0, seed=seed).parent
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    }

    def contents(folder: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (folder / "clips").iterdir()}

    assert contents(folders["a"]) == contents(folders["b"])
    assert contents(folders["a"]) != contents(folders["c"])


def test_speakers_languages_licences_and_groups_are_not_mixed(tmp_path: Path) -> None:
    manifest = source(tmp_path / "in")
    other = [{"speaker": "ben"}, {"language": "de"}, {"licence": "CC-BY-4.0"}, {"metadata": {"group": "noisy"}}]
    rows = read_manifest(manifest)
    changed = [replace(row, **other[n % 4]) if n < 8 else row for n, row in enumerate(rows)]  # type: ignore[arg-type]
    write_manifest(manifest, changed)
    found = long_rows(join(manifest, tmp_path / "out"))
    assert [sorted(row.metadata["clips"]) for row in found] == [
        ["c0", "c4"],
        ["c1", "c5"],
        ["c2", "c6"],
        ["c3", "c7"],
        ["c8"],
    ]
    assert [row.metadata.get("group") for row in found] == [None, None, None, "noisy", None]
    assert (found[0].speaker, found[1].language, found[2].licence) == ("ben", "de", "CC-BY-4.0")


def test_a_clip_that_is_too_long_is_a_recording_by_itself(tmp_path: Path) -> None:
    rows = long_rows(join(source(tmp_path / "in", count=3), tmp_path / "out", seconds=1.05))
    assert sorted(row.text for row in rows) == ["word0", "word1", "word2"]
    assert sorted(row.duration for row in rows) == [1.0, 1.1, 1.2]


def test_a_language_without_spaces_is_joined_without_them(tmp_path: Path) -> None:
    (row,) = long_rows(join(source(tmp_path / "in", count=2, language="zh", text="你好"), tmp_path / "out"))
    assert row.text == "你好你好"


def test_clips_without_speech_make_a_recording_without_speech(tmp_path: Path) -> None:
    manifest = source(tmp_path / "in", count=2, text="", metadata={"speech": False})
    (row,) = long_rows(join(manifest, tmp_path / "out"))
    assert (row.text, row.metadata["speech"]) == ("", False)


def test_the_same_again_is_kept_and_anything_else_refused(tmp_path: Path) -> None:
    manifest = source(tmp_path / "in")
    path = join(manifest, tmp_path / "out")
    written = path.stat().st_mtime_ns
    assert join(manifest, tmp_path / "out").stat().st_mtime_ns == written
    with pytest.raises(DataError, match="holds another build of joined; delete it or name another folder"):
        join(manifest, tmp_path / "out", seed=1)
    sf.write(tmp_path / "in/0.wav", np.full(RATE, 7, np.int16), RATE)
    with pytest.raises(DataError, match="holds another build"):
        join(manifest, tmp_path / "out")


def test_a_split_that_no_row_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no row has split 'test'; it has heldout, train"):
        join(source(tmp_path / "in"), tmp_path / "out", split="test")
