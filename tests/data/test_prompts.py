import gzip
import hashlib
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import fields, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
import torchaudio.functional as AF

from rlhf_platform.data import demo, prompts
from rlhf_platform.data.build import key_of
from rlhf_platform.data.extract_asterisk import extract_prompts, spoken
from rlhf_platform.data.manifest import Row, check_audio, check_splits, of_split, read_manifest
from rlhf_platform.data.prompts import (
    ARCHIVE,
    ARCHIVE_SHA256,
    CONDITIONS,
    SPLITS,
    Plan,
    build_key,
    build_prompts,
    decode_g722,
    read_archive,
    split_of,
)
from rlhf_platform.data.telephone import add_noise, telephone, to_line
from rlhf_platform.data.text import normalize, words
from rlhf_platform.errors import DataError, RecipeError
from rlhf_platform.recipe.schema import DataConfig

SMALL = Plan(prompts=16)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_prompts(tmp_path_factory.mktemp("data") / "recorded", SMALL)


@pytest.fixture(scope="module")
def pairs(built: Path) -> list[tuple[Row, Row]]:
    """Each prompt's clean and telephone row."""
    rows = read_manifest(built)
    telephone_rows = {row.id.rpartition("/")[0]: row for row in rows if row.metadata["group"] == "telephone"}
    return [(row, telephone_rows[row.id.rpartition("/")[0]]) for row in rows if row.metadata["group"] == "clean"]


def contents(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def samples(row: Row) -> np.ndarray:
    read, rate = sf.read(row.audio, dtype="float32")
    assert rate == 16_000
    return read


def power(signal: np.ndarray, low: float, high: float) -> float:
    """Of a signal at 16 kHz between two frequencies in Hz."""
    spectrum = np.abs(np.fft.rfft(signal)) ** 2 / len(signal) ** 2
    frequencies = np.fft.rfftfreq(len(signal), 1 / 16_000)
    return float(spectrum[(frequencies >= low) & (frequencies < high)].sum())


def decibels(ratio: float) -> float:
    return float(10 * np.log10(ratio))


def test_the_archive_holds_prompts_of_two_words_or_more_that_last_0_8_to_15_seconds() -> None:
    recordings = read_archive()
    assert len(recordings) == len({recording.id for recording in recordings}) == 291
    assert len({recording.g722 for recording in recordings}) == 291
    assert all(0.8 <= len(recording.g722) / 8_000 <= 15 for recording in recordings)  # 64 kbit/s
    assert all(len(words(recording.text, "en")) >= 2 for recording in recordings)
    assert set("".join(normalize(recording.text, "en") for recording in recordings)) <= set(
        "abcdefghijklmnopqrstuvwxyz' "
    )
    assert "Allison Smith" in (ARCHIVE.parent / "ATTRIBUTION.txt").read_text()
    assert (ARCHIVE.parent / "LICENSE.txt").read_text().startswith("Creative Commons Attribution-ShareAlike 3.0")
    assert ARCHIVE.stat().st_size < 15e6


def test_every_prompt_is_in_both_conditions_and_passes_every_check(built: Path, pairs: list[tuple[Row, Row]]) -> None:
    rows = read_manifest(built)
    check_audio(rows, window=15)
    assert len(pairs) == 16
    assert len(rows) == 32
    for clean, line in pairs:
        assert clean.id.startswith(f"{clean.split}/")
        assert (clean.text, clean.split, clean.duration) == (line.text, line.split, line.duration)
    assert {(row.speaker, row.language, row.licence) for row in rows} == {("allison", "en", "CC-BY-SA-3.0")}
    assert build_key(SMALL) == key_of(json.loads((built.parent / "build.json").read_text()))


def test_no_text_is_in_two_splits(built: Path) -> None:
    rows = read_manifest(built)
    for learnt, held_out in (("train", "heldout"), ("train", "dev"), ("dev", "heldout")):
        check_splits(rows, learnt, held_out)
    assert split_of("Thank you.") == split_of("thank  you!")


def test_the_splits_have_the_shares_that_they_should() -> None:
    texts = {normalize(recording.text, "en") for recording in read_archive()}
    for split, share in SPLITS.items():
        found = sum(split_of(text) == split for text in texts) / len(texts)
        assert abs(found - share) < 3 * (share * (1 - share) / len(texts)) ** 0.5  # three standard deviations


def test_a_split_has_its_clean_clips_first_so_that_every_nth_clip_is_of_both_conditions(built: Path) -> None:
    for split in SPLITS:
        groups = [row.metadata["group"] for row in of_split(read_manifest(built), split)]
        assert groups == [group for group in CONDITIONS for _ in range(len(groups) // 2)]


def test_two_builds_are_bit_exact_whatever_the_number_of_threads(built: Path, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        build_prompts(tmp_path / "again", SMALL)
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)
    assert contents(tmp_path / "again") == contents(built.parent)


def test_another_prompt_moves_no_other_and_another_seed_gives_other_noise(built: Path, tmp_path: Path) -> None:
    fewer = {row.id: row for row in read_manifest(build_prompts(tmp_path / "fewer", replace(SMALL, prompts=3)))}
    other = {row.id: row for row in read_manifest(build_prompts(tmp_path / "other", Plan(prompts=3, seed=1)))}
    all_rows = {row.id: row for row in read_manifest(built)}
    assert fewer.keys() == other.keys()
    for name, row in fewer.items():
        assert row.audio.read_bytes() == all_rows[name].audio.read_bytes()
        assert (row.audio.read_bytes() == other[name].audio.read_bytes()) == (row.metadata["group"] == "clean")


def test_a_clean_clip_is_the_recording_bit_for_bit(pairs: list[tuple[Row, Row]]) -> None:
    recordings = {recording.id: recording for recording in read_archive()}
    for clean, _ in pairs:
        recording = recordings[clean.id.removeprefix(f"{clean.split}/").removesuffix("/clean")]
        stored, _ = sf.read(clean.audio, dtype="int16")
        assert np.array_equal(stored, decode_g722(BytesIO(recording.g722)))


def test_a_telephone_clip_has_the_band_of_a_telephone(pairs: list[tuple[Row, Row]]) -> None:
    for clean, line in pairs:
        before, after = samples(clean), samples(line)
        assert decibels(power(after, 4_200, 8_001) / power(after, 0, 8_001)) < -40
        below = decibels(power(after, 0, 250) / power(after, 300, 3_400))
        assert below < -25
        assert below < decibels(power(before, 0, 250) / power(before, 300, 3_400)) - 20


def test_each_telephone_clip_has_the_noise_that_its_row_says(pairs: list[tuple[Row, Row]]) -> None:
    """The part of the clip that the clean speech in the same band does not explain is the noise."""
    stated = [line.metadata["snr_db"] for _, line in pairs]
    assert min(stated) >= 5
    assert max(stated) <= 15
    assert max(stated) - min(stated) > 5
    for clean, line in pairs:
        speech = to_line(samples(clean)).numpy()
        heard = AF.resample(torch.from_numpy(samples(line)).double(), 16_000, 8_000).numpy()
        loudness = heard @ speech / (speech @ speech)
        noise = heard - loudness * speech
        frames = range(0, len(speech) - 159, 160)
        loudest = max(np.mean(speech[i : i + 160] ** 2) for i in frames)
        active = [i for i in frames if np.mean(speech[i : i + 160] ** 2) > loudest / 1_000]
        speech_power = np.mean([np.mean((loudness * speech[i : i + 160]) ** 2) for i in active])
        noise_power = np.mean([np.mean(noise[i : i + 160] ** 2) for i in active])
        assert abs(decibels(speech_power / noise_power) - line.metadata["snr_db"]) < 0.5


def test_noise_is_added_as_torchaudio_adds_it_where_speech_never_pauses() -> None:
    generator = torch.Generator().manual_seed(0)
    speech, noise = torch.randn(2, 16_000, generator=generator, dtype=torch.float64)
    expected = AF.add_noise(speech, noise, torch.tensor(7.0, dtype=torch.float64))
    assert torch.allclose(add_noise(speech, noise, 7.0), expected)


def test_silence_around_the_speech_does_not_make_the_noise_fainter() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(48_000, generator=generator, dtype=torch.float64)
    speech = torch.zeros(48_000, dtype=torch.float64)
    speech[16_000:32_000] = torch.randn(16_000, generator=generator, dtype=torch.float64)
    added = add_noise(speech, noise, 10.0) - speech
    measured = decibels(float(speech[16_000:32_000].square().mean() / added[16_000:32_000].square().mean()))
    assert abs(measured - 10) < 1e-6


@pytest.mark.parametrize("length", [1, 159, 16_001])
def test_a_line_keeps_the_length_and_the_range(length: int) -> None:
    loud = np.sin(np.arange(length, dtype=np.float32))
    heard = telephone(loud, snr_db=0.0, seed=0)
    assert (heard.shape, heard.dtype) == ((length,), np.float32)
    assert np.abs(heard).max() <= 1


def test_an_archive_that_is_not_the_known_one_is_refused_in_one_line(tmp_path: Path) -> None:
    other = tmp_path / "prompts.zip"
    with pytest.raises(DataError, match=r"prompts\.zip: no such archive; .*\Z"):
        read_archive(other)
    other.write_bytes(ARCHIVE.read_bytes()[:-1] + b"?")
    with pytest.raises(DataError, match=rf"prompts\.zip: sha256 is [0-9a-f]{{64}}, not {ARCHIVE_SHA256}; .*\Z"):
        read_archive(other)


def test_a_refused_archive_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "prompts.zip").write_bytes(b"")
    monkeypatch.setattr(prompts, "ARCHIVE", tmp_path / "prompts.zip")
    with pytest.raises(DataError):
        build_prompts(tmp_path / "recorded", SMALL)
    assert os.listdir(tmp_path) == ["prompts.zip"]


def test_a_second_build_is_found_and_other_files_are_left_alone(built: Path, tmp_path: Path) -> None:
    def told(done: int, total: int) -> None:
        raise AssertionError("built again")

    assert build_prompts(built.parent, SMALL, progress=told) == built
    with pytest.raises(DataError, match="holds another build of recorded; delete it or name another folder"):
        build_prompts(built.parent, replace(SMALL, seed=1))
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="holds other files"):
        build_prompts(tmp_path, SMALL)
    assert os.listdir(tmp_path) == ["mine.txt"]


def test_progress_counts_every_clip(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    build_prompts(tmp_path / "recorded", Plan(prompts=2), progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 4) for done in range(1, 5)]


def test_the_set_is_built_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(out: Path, progress: Callable[[int, int], None]) -> Path:
        return build_prompts(out, Plan(prompts=1), progress)

    monkeypatch.setattr(demo, "build_prompts", small)
    assert demo.build("recorded", tmp_path) == tmp_path / "data" / f"recorded-{build_key()}" / "manifest.jsonl"
    there = r"there is digits, recorded, speech, phrases, dialogue, exchanges; did you mean 'recorded'\?"
    with pytest.raises(RecipeError, match=there):
        demo.build("recordings", tmp_path)


@pytest.mark.parametrize(
    ("name", "published", "said"),
    [
        ("vm-goodbye", "Goodbye", "Goodbye"),
        ("vm-toreply", "press 1 to send a reply", "press one to send a reply"),
        ("dictate/enter_filename", "followed by # or just # to exit", "followed by pound or just pound to exit"),
        ("demo-enterkeywords", "separated by * and then", "separated by star and then"),
        ("conf-hasjoin", "...has  joined ...", "has joined"),
        ("vm-intro", "after the tone. (simple tone sound plays)", "after the tone."),
        ("silence/1", "(1 second of silence)", None),
        ("beep", "[this is a simple beep tone]", None),
        ("confbridge-join", "<beep ascending>", None),
        ("demo-moreinfo", "visit www.asterisk.org.", None),
    ],
)
def test_a_transcript_becomes_what_is_said(name: str, published: str, said: str | None) -> None:
    assert spoken(name, published) == said


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """The two packages as they would be with no prompts but ours and a few that are not to be taken."""
    folder = tmp_path / "unpacked"
    voice = folder / "usr" / "share" / "asterisk" / "sounds" / "en_US_f_Allison"
    recordings = read_archive()
    lines = ["; Core Asterisk Sounds in English", "", "gone-with-its-file: There is no such recording."]
    others = {"beep": "[a beep]", "digits/1": "one", "too-long": "Far too long.", "too-short": "Too short."}
    durations = {"too-long": 15.1, "too-short": 0.7}
    for recording in recordings:
        (voice / recording.id).parent.mkdir(parents=True, exist_ok=True)
        (voice / f"{recording.id}.g722").write_bytes(recording.g722)
        lines.append(f"{recording.id}: {recording.text}")
    for name, text in others.items():
        (voice / name).parent.mkdir(exist_ok=True)
        (voice / f"{name}.g722").write_bytes(bytes(round(8_000 * durations.get(name, 1.0))))
        lines.append(f"{name}: {text}")
    transcripts = folder / "usr" / "share" / "doc" / "asterisk-core-sounds-en" / "core-sounds-en.txt.gz"
    transcripts.parent.mkdir(parents=True)
    transcripts.write_bytes(gzip.compress("\n".join(lines).encode()))
    return folder


def test_the_archive_is_made_from_unpacked_packages_with_the_same_bits(unpacked: Path, tmp_path: Path) -> None:
    made = tmp_path / "out" / "prompts.zip"
    assert extract_prompts(unpacked, made) == 291
    assert hashlib.sha256(made.read_bytes()).hexdigest() == ARCHIVE_SHA256
    with zipfile.ZipFile(made) as archive:
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}


def test_a_transcript_with_signs_left_in_it_and_missing_packages_are_refused(unpacked: Path, tmp_path: Path) -> None:
    (transcripts,) = unpacked.rglob("core-sounds-en.txt.gz")
    transcripts.write_bytes(gzip.compress(b"hello-world: Hello w0rld.\n"))
    with pytest.raises(DataError, match=r"hello-world: '0' in 'Hello w0rld\.': add it to CORRECTIONS"):
        extract_prompts(unpacked, tmp_path / "prompts.zip")
    with pytest.raises(DataError, match=r"no core-sounds-en\.txt\.gz; unpack asterisk-core-sounds-en there"):
        extract_prompts(unpacked / "usr" / "share" / "asterisk", tmp_path / "prompts.zip")
    with pytest.raises(DataError, match="no recordings; unpack asterisk-core-sounds-en-g722 there"):
        extract_prompts(unpacked / "usr" / "share" / "doc", tmp_path / "prompts.zip")
    assert not (tmp_path / "prompts.zip").exists()


def test_a_recipe_may_name_every_set_that_there_is() -> None:
    (field,) = (field for field in fields(DataConfig) if field.name == "demo")
    assert field.metadata["choices"] == (None, *demo.NAMES, "judge"), "that of judges is text, which nothing builds"
