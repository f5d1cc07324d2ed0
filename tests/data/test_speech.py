import hashlib
import json
import math
import random
from dataclasses import asdict, replace
from pathlib import Path

import hama
import numpy as np
import pytest
import soundfile as sf
from rapidfuzz.distance import Levenshtein

from rlhf_platform.data import demo
from rlhf_platform.data.audio import load_audio
from rlhf_platform.data.delivery import Delivery, deliver
from rlhf_platform.data.emphasis import Line, emphasised, line_of, word_values
from rlhf_platform.data.instructions import group, keeps
from rlhf_platform.data.manifest import check_audio, check_splits, of_split, read_manifest, write_manifest
from rlhf_platform.data.phonemes import align
from rlhf_platform.data.prosody import Norms, contours, discretise, measure, norms_of
from rlhf_platform.data.prosody_praat import measure as measure_by_praat
from rlhf_platform.data.speech import F0, LEVEL, RATE, Plan, build_key, build_speech, draw, places
from rlhf_platform.data.speech_texts import TEXTS, VOCABULARY
from rlhf_platform.data.supervision import describe, describe_manifest, listen
from rlhf_platform.errors import DataError
from tests.vowels import silence, vowel

SMALL = Plan(train=8, rl=2, heldout=2)
TEXT = "open the red box"
PLAIN = Delivery(speed=1.0, rate=RATE, f0=F0, change=0.0, level=LEVEL)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_speech(tmp_path_factory.mktemp("data") / "speech", SMALL)


def contents(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_texts_are_all_commands_of_the_vocabulary() -> None:
    assert len(TEXTS) == len(set(TEXTS)) == 64
    assert {word for text in TEXTS for word in text.split()} == set(VOCABULARY)
    assert len(VOCABULARY) == 13


def test_a_build_has_the_clips_of_the_plan_and_passes_every_check(built: Path) -> None:
    rows = read_manifest(built)
    dropped = json.loads((built.parent / "dropped.json").read_text())
    check_splits(rows, "train")
    check_splits(rows, "rl")
    check_audio(rows, window=SMALL.longest)
    planned = [place.id for place in places(SMALL)]
    assert [row.id for row in rows] == [name for name in planned if name not in dropped]
    assert all(row.licence == "Apache-2.0" and row.metadata["voice"] == "hibari" for row in rows)


def test_a_plan_keeps_held_out_texts_apart() -> None:
    whole = places(Plan())
    held_out = {place.text for place in whole if place.split == "heldout"}
    assert len(held_out) == 16
    assert not held_out & {place.text for place in whole if place.split != "heldout"}
    assert [place.split for place in whole].count("train") == Plan().train


def test_phrases_are_words_in_any_order_and_never_a_held_out_command() -> None:
    plan = Plan(train=400, rl=0, heldout=16, phrases=0.75)
    held_out = {place.text for place in places(plan) if place.split == "heldout"}
    texts = [place.text for place in places(plan) if place.split == "train"]
    assert 200 < sum(text not in TEXTS for text in texts) < 340
    assert {len(text.split()) for text in texts} == {1, 2, 3, 4}
    assert {word for text in texts for word in text.split()} == set(VOCABULARY)
    assert not held_out & set(texts)


def test_a_row_says_what_is_measured_in_its_clip(built: Path) -> None:
    rows = read_manifest(built)
    trained = [measure(load_audio(row.audio), row.text) for row in of_split(rows, "train")]
    norms = norms_of(trained)
    assert json.loads((built.parent / "norms.json").read_text()) == {"hibari": asdict(norms)}
    for row in rows:
        found = measure(load_audio(row.audio), row.text)
        assert row.metadata["asked"] == discretise(found, norms)
        assert row.metadata["norms"] == pytest.approx(asdict(norms), abs=1e-4)
        assert row.metadata["measured"]["f0"] == pytest.approx(found.f0, abs=1e-4)
        assert row.metadata["measured"]["pauses"] == [list(pause) for pause in found.pauses]
        assert keeps(row.metadata["instruction"], row.metadata["asked"])
        assert row.metadata["group"] == group(row.metadata["asked"])
        assert ("<pause>" in row.metadata["inline"]) == bool(found.pauses)
        assert [word for word in row.metadata["inline"].split() if "<" not in word] == row.text.split()


def test_clips_start_and_end_with_speech_and_none_is_clipped(built: Path) -> None:
    for row in read_manifest(built):
        samples = load_audio(row.audio)
        loud = np.flatnonzero(np.abs(samples) > 0.1 * np.abs(samples).max())
        assert loud[0] / 16_000 < 0.15
        assert (len(samples) - loud[-1]) / 16_000 < 0.3  # a last fricative is below a tenth of the peak
        assert np.abs(samples).max() < 0.96


def test_two_builds_are_bit_exact_and_the_second_is_found(built: Path, tmp_path: Path) -> None:
    build_speech(tmp_path / "again", SMALL)
    assert contents(tmp_path / "again") == contents(built.parent)

    def told(done: int, total: int) -> None:
        raise AssertionError("built again")

    assert build_speech(built.parent, SMALL, progress=told) == built


def test_the_demo_is_known_by_its_name(tmp_path: Path) -> None:
    assert demo.folder_of("speech", tmp_path) == tmp_path / "data" / f"speech-{build_key()}"
    assert build_key(replace(Plan(), seed=1)) != build_key()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"speed": 0.75, "rate": 0.7 * RATE}, {"rate": "slow"}),
        ({"speed": 1.15, "rate": 1.4 * RATE}, {"rate": "fast"}),
        ({"f0": F0 * 2 ** (-5 / 12)}, {"pitch": "low"}),
        ({"f0": F0 * 2 ** (5 / 12)}, {"pitch": "high"}),
        ({"level": LEVEL - 7}, {"energy": "soft"}),
        ({"level": LEVEL + 7}, {"energy": "loud"}),
        ({"change": -9.0}, {"ending": "falling"}),
        ({"change": 9.0}, {"ending": "rising"}),
        ({"pause": (1, 0.3)}, {"pause": "one"}),
    ],
)
def test_praat_too_hears_what_the_delivery_changes_and_nothing_else(
    change: dict[str, float], expected: dict[str, str]
) -> None:
    norms = Norms(RATE, F0, LEVEL)
    normal = {"rate": "normal", "pitch": "normal", "energy": "normal", "pause": "none", "ending": "level"}
    text = "bring the golden window"
    samples = deliver(text, replace(PLAIN, **change), seed=0)
    assert discretise(measure_by_praat(samples, text), norms) == normal | expected
    assert discretise(measure(samples, text), norms) == normal | expected


def test_an_emphasised_word_is_found_and_no_other() -> None:
    texts = random.Random(0).sample(TEXTS, 6)
    plain = [deliver(text, PLAIN, seed=0) for text in texts]
    values = [
        word_values(contours(samples), align(samples, text).starts) for samples, text in zip(plain, texts, strict=True)
    ]
    line = line_of(values)
    assert [emphasised(each, line) for each in values] == [None] * len(texts)
    loud = [deliver(text, replace(PLAIN, emphasis=2), seed=0) for text in texts]
    values = [
        word_values(contours(samples), align(samples, text).starts) for samples, text in zip(loud, texts, strict=True)
    ]
    assert [emphasised(each, line) for each in values].count(2) >= 5


def test_a_line_is_the_common_slope_and_emphasis_stands_above_it() -> None:
    down = np.array([[6.0, 3.0], [4.0, 2.0], [2.0, 1.0], [0.0, 0.0]])
    assert line_of([down, down + 20]).slope == pytest.approx((-6.0, -3.0))
    line = Line((-6.0, -3.0))
    assert emphasised(down, line) is None
    assert emphasised(down + np.array([[0, 0], [0, 0], [4, 3], [0, 0]]), line) == 2
    assert emphasised(down + np.array([[0, 0], [0, 0], [4, 0], [0, 0]]), line) is None  # higher, not louder
    assert emphasised(np.full((4, 2), math.nan), line) is None


def test_phoneme_error_is_that_of_hama_called_by_hand() -> None:
    samples = deliver(TEXT, PLAIN, seed=0)
    heard = hama.ASRModel().transcribe_waveform(samples, 16_000).phonemes
    for text in (TEXT, "watch the golden hammer"):
        said = [each.phoneme for each in hama.G2PModel().predict(text).alignments]
        assert align(samples, text).error == Levenshtein.distance(said, heard) / len(said)
    assert align(samples, TEXT).error < 0.2 < 0.6 < align(samples, "watch the golden hammer").error


def test_words_start_in_order_and_after_an_inserted_pause() -> None:
    samples = deliver("open the red box", replace(PLAIN, pause=(1, 0.3)), seed=0)
    starts = align(samples, TEXT).starts
    assert list(starts) == sorted(starts)
    assert starts[1] == pytest.approx(measure(samples, TEXT).pauses[0][1], abs=0.06)
    with pytest.raises(ValueError, match=r"'7'.*spell out its numbers"):
        align(samples, "open box 7")


def test_deliveries_are_drawn_off_normal_about_as_often_as_said() -> None:
    drawn = [draw(random.Random(seed), 4) for seed in range(1000)]
    for off in (
        [each.speed != 1.0 for each in drawn],
        [abs(math.log2(each.f0 / F0)) > 0.2 for each in drawn],
        [abs(each.change) > 5 for each in drawn],
        [abs(each.level - LEVEL) > 5 for each in drawn],
        [each.pause is not None for each in drawn],
        [each.emphasis is not None for each in drawn],
    ):
        assert np.mean(off) == pytest.approx(0.3, abs=0.05)
    assert {each.emphasis for each in drawn} == {None, 0, 2, 3}


def test_a_manifest_of_ones_own_is_described_and_what_says_another_text_is_dropped(built: Path, tmp_path: Path) -> None:
    rows = [replace(row, metadata={"mine": row.number}) for row in read_manifest(built)]
    wrong = replace(
        rows[3], text=next(text for text in TEXTS if not set(text.split()) & set(rows[3].text.split()) - {"the"})
    )
    write_manifest(tmp_path / "own.jsonl", [*rows[:3], wrong, *rows[4:]])
    told: list[tuple[int, int]] = []
    described = describe_manifest(tmp_path / "own.jsonl", tmp_path / "new.jsonl", lambda *at: told.append(at))
    assert told[-1] == (len(rows), len(rows))
    assert described.report() == f"1 of {len(rows)} rows dropped: 1 with a phoneme error above 0.3"
    assert [row.id for row, _ in described.dropped] == [wrong.id]
    written = read_manifest(tmp_path / "new.jsonl")
    assert [row.id for row in written] == [row.id for row in rows if row.id != wrong.id]
    assert written[0].metadata["mine"] == rows[0].metadata["mine"]
    assert written[0].metadata["asked"] == described.rows[0].metadata["asked"]
    assert written[0].audio.samefile(rows[0].audio)


def test_norms_are_each_speakers_own(built: Path) -> None:
    rows = read_manifest(built)[:4]
    rows = [*rows[:2], *(replace(row, speaker="other", split="heldout") for row in rows[2:])]
    heard = [listen(row) for row in rows]
    described = describe(rows, heard)
    assert described.norms["hibari"] == norms_of([each.prosody for each in heard[:2]])
    assert described.norms["other"] == norms_of([each.prosody for each in heard[2:]])


def test_all_rows_that_cannot_be_described_are_listed(built: Path, tmp_path: Path) -> None:
    rows = read_manifest(built)
    sf.write(tmp_path / "silent.flac", silence(1.0), 16_000)
    bad = [
        replace(rows[0], text="open " * 90),
        replace(rows[1], language="de"),
        replace(rows[2], metadata={"speech": False}, text=""),
    ]
    write_manifest(tmp_path / "texts.jsonl", [*bad, *rows[3:]])
    with pytest.raises(DataError) as raised:
        describe_manifest(tmp_path / "texts.jsonl", tmp_path / "new.jsonl")
    lines = str(raised.value).splitlines()
    assert lines[0].endswith("3 rows cannot be described")
    assert lines[1].endswith("row 1: text has 450 characters; at most 400: cut the clip into utterances")
    assert "row 2: language 'de': only English" in lines[2]
    assert "row 3: has no speech" in lines[3]
    write_manifest(
        tmp_path / "sounds.jsonl",
        [replace(rows[0], audio=tmp_path / "silent.flac"), replace(rows[1], text="room 7"), rows[2]],
    )
    with pytest.raises(DataError, match=r"(?s)2 rows cannot be described.*row 1: silent.*row 2: .*spell out"):
        describe_manifest(tmp_path / "sounds.jsonl", tmp_path / "new.jsonl")
    assert not (tmp_path / "new.jsonl").exists()


def test_a_vowel_is_no_command(built: Path, tmp_path: Path) -> None:
    row = read_manifest(built)[0]
    sf.write(tmp_path / "vowel.flac", vowel(200), 16_000)
    write_manifest(tmp_path / "own.jsonl", [replace(row, audio=tmp_path / "vowel.flac")])
    with pytest.raises(DataError, match=r"1 of 1 rows dropped: 1 with a phoneme error above 0\.3; none is left"):
        describe_manifest(tmp_path / "own.jsonl", tmp_path / "new.jsonl")
