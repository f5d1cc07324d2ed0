import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from rlhf_platform.data import demo, digits
from rlhf_platform.data.audio import load_audio
from rlhf_platform.data.digits import (
    GROUPS,
    RECORDINGS,
    SPEAKERS,
    VOCABULARY,
    Plan,
    build_digits,
    build_key,
)
from rlhf_platform.data.manifest import Row, check_audio, check_splits, of_split, read_manifest
from rlhf_platform.data.voices import Voice, speak
from rlhf_platform.errors import DataError, RecipeError

SMALL = Plan(train=20, rl=36, human=3, neural=2, seen=3, unseen=4)
"""More than one chunk of the process pool, so that the order of the rows is put to the test."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_digits(tmp_path_factory.mktemp("data") / "digits", SMALL)


def contents(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def group_of(row: Row) -> str:
    return next(group for group, speakers in SPEAKERS.items() if row.speaker in {speaker.name for speaker in speakers})


def test_every_word_of_the_vocabulary_has_a_whole_recording() -> None:
    for word in VOCABULARY:
        assert sf.info(RECORDINGS / f"{word}.flac").samplerate == 16_000
        assert 0.4 < len(load_audio(RECORDINGS / f"{word}.flac")) / 16_000 < 1.2
    assert {path.stem for path in RECORDINGS.glob("*.flac")} == set(VOCABULARY)
    assert "Allison Smith" in (RECORDINGS / "ATTRIBUTION.txt").read_text()


def test_a_build_has_the_clips_asked_for_and_passes_every_check(built: Path) -> None:
    rows = read_manifest(built)
    for learnt in ("train", "rl"):
        check_splits(rows, learnt)
    check_audio(rows, window=4.0)
    assert (len(of_split(rows, "train")), len(of_split(rows, "rl"))) == (20, 36)
    held_out = [group_of(row) for row in of_split(rows, "heldout")]
    assert {group: held_out.count(group) for group in SPEAKERS} == {
        "human": 3, "neural": 2, "seen": 3, "unseen": 4
    }  # fmt: skip
    assert all(set(row.text.split()) <= set(VOCABULARY) and 1 <= len(row.text.split()) <= 4 for row in rows)
    assert all(row.sample_rate == 16_000 and row.licence for row in rows)
    assert [row.id for row in rows] == [
        f"{split}/{i:05d}" for split, clips in (("heldout", 12), ("train", 20), ("rl", 36)) for i in range(clips)
    ]


@pytest.mark.parametrize("learnt", ["train", "rl"])
def test_no_held_out_text_and_no_held_out_voice_is_learnt_from(built: Path, learnt: str) -> None:
    rows = read_manifest(built)
    chosen, held_out = of_split(rows, learnt), of_split(rows, "heldout")
    assert not {row.text for row in chosen} & {row.text for row in held_out}
    assert len({row.text for row in held_out}) == len(held_out)
    assert min(len(row.text.split()) for row in held_out) == 2
    assert {group_of(row) for row in chosen} == {"human", "neural", "seen"}


def test_a_row_says_its_group_and_whether_it_was_recorded_or_synthesised(built: Path) -> None:
    for row in read_manifest(built):
        assert row.metadata["group"] == GROUPS[group_of(row)]
        source = "recorded" if row.speaker == "allison" else "synthetic"
        assert row.metadata["source"] == source
        assert (row.licence == "CC-BY-SA-3.0") == (source == "recorded")


def test_clips_start_and_end_with_speech(built: Path) -> None:
    for row in read_manifest(built):
        loud = np.flatnonzero(np.abs(load_audio(row.audio)) > 0.009)
        assert loud[0] <= 0.03 * 16_000 + 0.06 * 16_000  # margin, and the gap before a recorded word
        assert len(load_audio(row.audio)) - loud[-1] <= 0.03 * 16_000


def test_a_recorded_clip_is_the_recordings_in_sequence(built: Path) -> None:
    row = next(row for row in read_manifest(built) if row.speaker == "allison" and " " in row.text)
    clip = load_audio(row.audio)
    last = load_audio(RECORDINGS / f"{row.text.split()[-1]}.flac")
    tail = clip[-4_000:]
    assert any(np.array_equal(last[start : start + 4_000], tail) for start in range(len(last) - 4_000 + 1))


def test_two_builds_are_bit_exact_whatever_was_spoken_between(built: Path, tmp_path: Path) -> None:
    speak(Voice("espeak", "en-us+f3"), "something else", 16_000)
    build_digits(tmp_path / "again", SMALL)
    assert contents(tmp_path / "again") == contents(built.parent)


def test_the_build_is_the_same_whatever_the_number_of_processes(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_more = range(len(os.sched_getaffinity(0)) + 1)
    monkeypatch.setattr(digits.os, "sched_getaffinity", lambda _: one_more)
    build_digits(tmp_path / "again", SMALL)
    assert contents(tmp_path / "again") == contents(built.parent)


def test_another_seed_gives_other_texts(built: Path, tmp_path: Path) -> None:
    other = build_digits(tmp_path / "other", replace(SMALL, seed=1))
    assert [row.text for row in read_manifest(other)] != [row.text for row in read_manifest(built)]


def test_clips_stay_below_the_longest(tmp_path: Path) -> None:
    rows = read_manifest(build_digits(tmp_path / "short", Plan(8, 8, 1, 1, 1, 1, longest=1.2)))
    assert max(row.duration for row in rows) < 1.2
    with pytest.raises(DataError, match=r"no clip by allison is shorter than 0\.1 s"):
        build_digits(tmp_path / "none", Plan(8, 8, 1, 1, 1, 1, longest=0.1))
    assert {path.name for path in tmp_path.iterdir()} == {"short"}


def test_a_second_build_is_found_not_made(built: Path) -> None:
    def told(done: int, total: int) -> None:
        raise AssertionError("built again")

    assert build_digits(built.parent, SMALL, progress=told) == built


def test_progress_counts_every_clip_and_an_interrupted_build_leaves_nothing(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []

    def interrupt(done: int, total: int) -> None:
        told.append((done, total))
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_digits(tmp_path / "digits", Plan(2, 2, 1, 1, 1, 1), progress=interrupt)
    assert told == [(done, 8) for done in range(1, 8)]
    assert not list(tmp_path.iterdir())


def test_a_folder_with_other_files_is_left_alone(built: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="holds other files; delete it or name another folder"):
        build_digits(tmp_path, SMALL)
    with pytest.raises(DataError, match="holds another build of digits"):
        build_digits(built.parent, replace(SMALL, rl=1))
    assert os.listdir(tmp_path) == ["mine.txt"]


def test_the_same_set_built_meanwhile_by_another_process_is_taken(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "digits"
    plan = Plan(1, 1, 1, 0, 0, 0)

    def race(source: Path, target: Path) -> None:
        monkeypatch.undo()
        build_digits(out, plan)
        os.rename(source, target)

    monkeypatch.setattr(digits.os, "rename", race)
    assert len(read_manifest(build_digits(out, plan))) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"digits"}


def test_the_cache_keeps_builds_of_different_plans_apart() -> None:
    assert build_key() == build_key(Plan())
    assert build_key() != build_key(Plan(seed=1))


def test_an_unknown_demo_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"data\.demo: no data set 'digit'.*did you mean 'digits'"):
        demo.build("digit", tmp_path)


@pytest.mark.parametrize("name", ["xx", "en-us+nosuch"])
def test_an_unknown_espeak_voice_or_variant_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="has no voice"):
        speak(Voice("espeak", name), "alpha", 16_000)
