"""Cutting by the voice activity detector: the pure part on any spans, the detector on recorded speech."""

import subprocess
import sys
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_platform.data.prompts import decode_g722, read_archive
from rlhf_platform.data.voice_activity import MARGIN, SHORTEST_SPEECH, fitted, quietest, segments, speech
from rlhf_platform.types import Waveform

RATE = 16_000
SPANS = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 120)), max_size=12)
"""Gap before a span, and its length."""


def spans_of(lengths: list[tuple[int, int]]) -> list[tuple[int, int]]:
    spans, place = [], 0
    for gap, length in lengths:
        spans.append((place + gap, place + gap + length))
        place += gap + length
    return spans


def marked(spans: list[tuple[int, int]]) -> set[int]:
    return {sample for start, end in spans for sample in range(start, end)}


def prompt(name: str) -> Waveform:
    """A recorded prompt, 16 kHz."""
    (found,) = (recording for recording in read_archive() if recording.id == name)
    return (decode_g722(BytesIO(found.g722)) / 32_768).astype(np.float32)


@given(SPANS, st.integers(1, 100), st.randoms(use_true_random=False))
def test_pieces_hold_all_speech_and_none_is_too_long(
    lengths: list[tuple[int, int]], longest: int, random: object
) -> None:
    spans = spans_of(lengths)
    pieces = fitted(spans, longest, lambda start, end: random.randint(start + 1, end))  # type: ignore[attr-defined]
    assert marked(pieces) >= marked(spans)
    assert all(0 < end - start <= longest for start, end in pieces)
    assert all(end <= start for (_, end), (start, _) in pairwise(pieces))


@given(SPANS, st.integers(1, 100))
def test_no_two_neighbours_would_fit_into_one_piece(lengths: list[tuple[int, int]], longest: int) -> None:
    pieces = fitted(spans_of(lengths), longest, lambda start, end: end)
    assert all(end - start > longest for (start, _), (_, end) in pairwise(pieces))


@given(SPANS, st.integers(120, 400))
def test_spans_that_fit_are_cut_only_between_them(lengths: list[tuple[int, int]], longest: int) -> None:
    spans = spans_of(lengths)
    pieces = fitted(spans, longest, lambda start, end: pytest.fail("a span that fits was cut"))
    assert {start for start, _ in pieces} <= {start for start, _ in spans}
    assert {end for _, end in pieces} <= {end for _, end in spans}


def test_neighbours_become_one_while_they_fit_and_silence_between_pieces_is_left_out() -> None:
    assert fitted([(10, 20), (25, 40), (45, 51), (90, 95)], 40, max) == [(10, 40), (45, 51), (90, 95)]
    assert fitted([(10, 20), (25, 40), (45, 50), (85, 95)], 40, max) == [(10, 50), (85, 95)]
    assert fitted([], 40, max) == []


def test_a_span_that_is_too_long_is_cut_in_the_last_third_of_what_fits() -> None:
    asked: list[tuple[int, int]] = []

    def cut(start: int, end: int) -> int:
        asked.append((start, end))
        return start + 5

    assert fitted([(100, 190)], 60, cut) == [(100, 145), (145, 190)]
    assert asked == [(140, 160)]


def test_a_piece_of_less_than_a_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="longest is 0 samples"):
        fitted([(0, 5)], 0, max)


def test_the_quietest_place_is_the_middle_of_the_tenth_of_a_second_with_the_least_energy() -> None:
    samples = np.ones(4 * RATE, np.float32)
    samples[24_000:25_600] = 0.1
    samples[40_000:40_800] = 0.0  # shorter than a tenth: a closure in a word
    assert quietest(samples, RATE, 3 * RATE) == 24_800
    assert quietest(samples, RATE, RATE + 1_599) == RATE + 1_599


def test_recorded_speech_is_cut_in_its_pauses() -> None:
    pause = np.zeros(RATE, np.float32)
    parts = [pause]
    for name in ("conf-muted", "conf-full", "conf-getpin"):
        parts += [prompt(name), pause]
    samples = np.concatenate(parts)
    pieces = segments(samples, RATE, longest=len(parts[5]) / RATE + 0.5)
    assert len(pieces) == 3
    kept = np.zeros(len(samples), bool)
    for start, end in pieces:
        kept[start:end] = True
    assert kept[np.abs(samples) > 0.01].all()
    place = 0
    for part in parts:
        quiet = slice(place + len(part) * 3 // 10, place + len(part) * 7 // 10)
        assert part is not pause or not kept[quiet].any()
        place += len(part)
    assert segments(samples, RATE, longest=len(samples) / RATE) == [(pieces[0][0], pieces[-1][1])]


def test_speech_without_a_pause_loses_nothing() -> None:
    whole = prompt("conf-usermenu")
    ((start, end),) = segments(whole, RATE, longest=60)
    pieces = segments(whole, RATE, longest=0.7)
    assert (pieces[0][0], pieces[-1][1]) == (start, end)
    assert all(0 < stop - begin <= 0.7 * RATE for begin, stop in pieces)
    assert marked(pieces) >= marked(speech(whole))


def test_silence_and_steady_noise_have_no_speech() -> None:
    noise = np.random.default_rng(0).normal(scale=0.05, size=5 * RATE).astype(np.float32)
    assert segments(np.zeros(5 * RATE, np.float32), RATE, 2) == []
    assert segments(noise, RATE, 2) == []


def test_the_detector_hears_what_its_torchscript_model_hears() -> None:
    """The package's two models are the same network; ours takes many frames at a time."""
    import torch
    from silero_vad import get_speech_timestamps, load_silero_vad

    threads = torch.get_num_threads()
    samples = np.concatenate([prompt("conf-getpin"), np.zeros(RATE, np.float32), prompt("conf-muted")])
    found = get_speech_timestamps(
        torch.from_numpy(samples),
        load_silero_vad(),
        min_speech_duration_ms=round(1000 * SHORTEST_SPEECH),
        speech_pad_ms=round(1000 * MARGIN),
    )
    torch.set_num_threads(threads)
    assert speech(samples) == [(each["start"], each["end"]) for each in found]


def test_another_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="sample_rate is 8000: the detector takes 16000 Hz"):
        segments(np.zeros(8_000, np.float32), 8_000, 1.0)


def test_torch_keeps_its_threads_and_is_not_imported_before_it_is_needed() -> None:
    code = (
        "import sys; import numpy as np; from rlhf_platform.data.voice_activity import segments\n"
        "assert 'torch' not in sys.modules\n"
        "import torch; torch.set_num_threads(3); segments(np.zeros(16_000, np.float32), 16_000, 1.0)\n"
        "sys.exit(torch.get_num_threads())"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 3
