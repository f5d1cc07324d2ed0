"""The comparison before and after, by group."""

import pytest

from rewards.asr.errors import WordErrors
from rlhf_platform.evaluation.report import EvalResult, compare, evaluate, lines, render
from rlhf_platform.types import Prompt


def prompt(name: str, reference: str, group: str | None) -> Prompt:
    metadata = {} if group is None else {"group": group}
    return Prompt(name, f"{name}.flac", reference, "en", speaker="ann", metadata=metadata)


PROMPTS = [
    prompt("a", "alpha bravo", "recorded"),
    prompt("b", "charlie delta", "unseen voices"),
    prompt("c", "echo nine nine nine", "recorded"),
]
BEFORE = evaluate("warm start", PROMPTS, ["alpha", "xray delta", "echo nine nine nine nine"])
AFTER = evaluate("step 40", PROMPTS, ["alpha bravo", "charlie delta", "echo nine nine nine nine"])


def test_the_normaliser_decides_what_an_error_is_and_stays_with_the_result() -> None:
    """By appendix C of 2212.04356 numbers that are spelt out are digits."""
    clips, heard = [prompt("a", "press one", None)], ["Press 1"]
    assert evaluate("x", clips, heard).total.wer == 0.5
    published = evaluate("x", clips, heard, "whisper-1")
    assert published.total.wer == 0.0
    assert EvalResult.from_json(published.to_json()) == published
    with pytest.raises(ValueError, match="'plain-1' and 'whisper-1' differ"):
        compare([evaluate("x", clips, heard)], [published])


def test_an_evaluation_keeps_every_clip() -> None:
    assert [u.group for u in BEFORE.utterances] == ["recorded", "unseen voices", "recorded"]
    assert [u.errors.errors for u in BEFORE.utterances] == [1, 1, 1]
    assert BEFORE.total == WordErrors(substitutions=1, deletions=1, insertions=1, reference_words=8)
    assert BEFORE.total.wer == 3 / 8


def test_an_evaluation_survives_json() -> None:
    assert EvalResult.from_json(BEFORE.to_json()) == BEFORE
    accents = evaluate("x", [prompt("d", "naïve 你", None)], ["naïve"])
    assert EvalResult.from_json(accents.to_json()) == accents


def test_rows_by_hand() -> None:
    rows = compare([BEFORE], [AFTER], resamples=200)
    assert [(r.group, r.clips, r.before.wer, r.after.wer) for r in rows] == [
        ("all", 3, 3 / 8, 1 / 8),
        ("recorded", 2, 2 / 6, 1 / 6),
        ("unseen voices", 1, 1 / 2, 0.0),
    ]
    assert rows[0].difference.point == pytest.approx(-2 / 8)
    assert rows[0].difference.low <= rows[0].difference.point <= rows[0].difference.high
    # One clip: every draw is that clip.
    assert (rows[2].difference.low, rows[2].difference.high) == (-0.5, -0.5)


def test_seeds_are_added_up_but_clips_counted_once() -> None:
    [row, *_] = compare([BEFORE], [AFTER, BEFORE], resamples=200)
    assert row.clips == 3
    assert row.after.wer == (1 + 3) / 16
    assert row.difference.point == pytest.approx(4 / 16 - 3 / 8)


def test_without_groups_there_is_one_row() -> None:
    result = evaluate("x", [prompt("a", "alpha", None), prompt("b", "bravo", None)], ["alpha", ""])
    assert [row.group for row in compare([result], [result], resamples=100)] == ["all"]


def test_a_group_of_noise_counts_in_all_and_has_no_row() -> None:
    result = evaluate("x", [prompt("a", "alpha", "speech"), prompt("n", "", "noise")], ["alpha", "bravo"])
    rows = compare([result], [result], resamples=100)
    assert [(row.group, row.before.insertions) for row in rows] == [("all", 1), ("speech", 0)]


def test_the_table_as_plain_text() -> None:
    rows = compare([BEFORE], [AFTER], resamples=200)
    text = lines(rows, "held-out")
    assert text[0].strip() == "held-out"
    assert "95 % interval" in text[1]
    unseen = next(line for line in text if "unseen voices" in line)
    assert unseen.split()[:7] == ["unseen", "voices", "1", "50.00", "0.00", "-50.00", "[-50.00,"]
    assert unseen.split()[8:13] == ["50.0", "/", "0.0", "/", "0.0"]
    assert render(rows).row_count == 3


def test_other_clips_or_another_normaliser_are_not_compared() -> None:
    fewer = EvalResult("fewer", BEFORE.utterances[:2])
    with pytest.raises(ValueError, match="'warm start' and 'fewer' decoded different clips"):
        compare([BEFORE], [fewer])
    with pytest.raises(ValueError, match="normalisers"):
        compare([BEFORE], [EvalResult("old", BEFORE.utterances, normalizer="plain-0")])
    with pytest.raises(ValueError, match="prompt id twice"):
        compare([EvalResult("twice", BEFORE.utterances * 2)], [BEFORE])
    with pytest.raises(ValueError, match="shorter"):
        evaluate("x", PROMPTS, ["alpha"])
