"""Long clips cut into pieces and put together again."""

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from rlhf_platform.data import voice_activity
from rlhf_platform.data.audio import load_audio
from rlhf_platform.data.manifest import read_manifest
from rlhf_platform.data.prompts import Plan, build_prompts
from rlhf_platform.evaluation.long_form import by_prompt, cut, stitch
from rlhf_platform.types import Prompt

RATE = 16_000


def prompt(path: Path, samples: np.ndarray, language: str = "en", rate: int = RATE) -> Prompt:
    sf.write(path, samples.astype(np.float32), rate, subtype="FLOAT")
    return Prompt(path.stem, str(path), "what is said", language, "anna", len(samples) / rate, {"group": "g"})


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """Five recorded prompts, a second of silence around each."""
    rows = read_manifest(build_prompts(tmp_path_factory.mktemp("data") / "recorded", Plan(prompts=5)))
    parts = [np.zeros(RATE, np.float32)]
    for row in rows:
        if row.metadata["group"] == "clean":
            parts += [load_audio(row.audio), np.zeros(RATE, np.float32)]
    return np.concatenate(parts)


def test_pieces_are_bit_for_bit_what_the_detector_found(tmp_path: Path, spoken: np.ndarray) -> None:
    long = prompt(tmp_path / "long.wav", spoken)
    (pieces,) = cut([long], 6.0, tmp_path / "cache")
    spans = voice_activity.segments(load_audio(long.audio), RATE, 6.0)
    assert len(pieces) == len(spans) > 2
    for number, (piece, (start, end)) in enumerate(zip(pieces, spans, strict=True), start=1):
        np.testing.assert_array_equal(load_audio(piece.audio), spoken[start:end])
        assert Path(piece.audio).is_relative_to(tmp_path / "cache")
        assert (piece.id, piece.duration) == (f"long#{number}", (end - start) / RATE)
        assert (piece.reference, piece.language, piece.speaker, piece.metadata) == ("", "en", "anna", {"group": "g"})
    assert all(piece.duration <= 6.0 for piece in pieces)


def test_a_clip_at_another_rate_is_cut_as_it_is_decoded(tmp_path: Path, spoken: np.ndarray) -> None:
    long = prompt(tmp_path / "long.wav", np.repeat(spoken, 2), rate=2 * RATE)
    (pieces,) = cut([long], 6.0, tmp_path / "cache")
    decoded = load_audio(long.audio)
    spans = voice_activity.segments(decoded, RATE, 6.0)
    for piece, (start, end) in zip(pieces, spans, strict=True):
        np.testing.assert_array_equal(load_audio(piece.audio), decoded[start:end])


def test_a_clip_that_fits_stays_itself_and_progress_is_told(tmp_path: Path) -> None:
    short = [prompt(tmp_path / f"{name}.wav", np.zeros(RATE)) for name in "ab"]
    told: list[tuple[int, int]] = []
    assert cut(short, 1.0, tmp_path / "cache", lambda *progress: told.append(progress)) == [[short[0]], [short[1]]]
    assert told == [(1, 2), (2, 2)]
    assert not (tmp_path / "cache").exists()


def test_the_audio_decides_where_the_duration_is_a_little_off(tmp_path: Path, spoken: np.ndarray) -> None:
    clip = prompt(tmp_path / "a.wav", spoken[: 2 * RATE + 160])
    stated = Prompt("a", clip.audio, "what is said", "en", duration=2.0)
    assert cut([stated], 2.0, tmp_path / "cache") != [[stated]]
    over = Prompt("a", clip.audio, "what is said", "en", duration=2.015)
    assert cut([over], 2.01, tmp_path / "cache") == [[over]]


def test_a_clip_without_speech_has_no_pieces(tmp_path: Path) -> None:
    silent = prompt(tmp_path / "silent.wav", np.zeros(5 * RATE))
    assert cut([silent], 2.0, tmp_path / "cache") == [[]]


def test_a_clip_is_cut_once_until_something_changes(
    tmp_path: Path, spoken: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    real = voice_activity.segments

    def counted(samples: np.ndarray, rate: int, longest: float) -> list[tuple[int, int]]:
        asked.append(longest)
        return real(samples, rate, longest)

    monkeypatch.setattr(voice_activity, "segments", counted)
    long, silent = prompt(tmp_path / "long.wav", spoken), prompt(tmp_path / "silent.wav", np.zeros(9 * RATE))
    first = cut([long, silent], 6.0, tmp_path / "cache")
    assert cut([long, silent], 6.0, tmp_path / "cache") == first
    assert asked == [6.0, 6.0]
    cut([long, silent], 5.0, tmp_path / "cache")
    assert asked == [6.0, 6.0, 5.0, 5.0]
    cut([prompt(tmp_path / "long.wav", spoken[RATE // 2 :]), silent], 6.0, tmp_path / "cache")
    assert asked == [6.0, 6.0, 5.0, 5.0, 6.0]
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.name.startswith(".")] == []


def test_a_cut_that_fails_leaves_nothing_behind(
    tmp_path: Path, spoken: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    long = prompt(tmp_path / "long.wav", spoken)
    monkeypatch.setattr(sf, "write", full)
    with pytest.raises(OSError, match="No space left"):
        cut([long], 6.0, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_texts_are_joined_as_the_language_is_written() -> None:
    prompts = [Prompt(name, "", "", language) for name, language in (("a", "en"), ("b", "zh-TW"), ("c", "en"))]
    pieces = [[prompts[0]] * 3, [prompts[1]] * 2, []]
    texts = [" one two", "", "three ", "你好", "世界"]
    assert stitch(prompts, pieces, texts) == ["one two three", "你好世界", ""]
    assert by_prompt(pieces, [1, 2, 3, 4, 5]) == [[1, 2, 3], [4, 5], []]


def test_a_text_too_many_or_too_few_is_refused() -> None:
    one = Prompt("a", "", "", "en")
    for texts in ([], ["x", "y"]):
        with pytest.raises(ValueError, match=f"1 pieces and {len(texts)} answers"):
            stitch([one], [[one]], texts)
