"""What a dialogue evaluation wrote, intervals over sessions against the bootstrap of session means, and the report."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from rlhf_platform.errors import DataError, RunError
from rlhf_platform.evaluation.bootstrap import wer_difference, wer_interval
from rlhf_platform.evaluation.dialogue import (
    EVASIVE,
    DialogueResult,
    Reply,
    by_turn,
    difference,
    mean_interval,
    read_dialogue,
    win_rate,
    write_dialogue,
)
from rlhf_platform.evaluation.dialogue_report import longest_session, table, turn_table, write_session
from rlhf_platform.evaluation.report import as_lines
from rlhf_platform.types import Failed, Outcome, Prompt, Sample, Scored, ScoredSample, StopReason


def reply(session: str, turn: int, score: float | None = None, text: str = "aye", ended: bool = True) -> Reply:
    scores = {} if score is None else {"quality": score}
    return Reply(f"{session}#{turn}", session, "", (), "", "", "", text, "aye", "en", ended, scores)


def result(label: str, *replies: Reply) -> DialogueResult:
    return DialogueResult(label, replies)


def scored(folder: Path, name: str, text: str, outcome: Outcome, turn: int = 1, **metadata: Any) -> ScoredSample:
    history = [
        {"role": "user", "audio": str(folder / "a.wav"), "text": "my name is anna"},
        {"role": "assistant", "text": "hello anna", "tokens": [3, 4], "reasoning": "my name is anna"},
    ] * (turn - 1)
    prompt = Prompt(
        name,
        str(folder / "b.wav"),
        "your name is anna, sir",
        "en",
        metadata={"persona": "a butler", "said": "what is my name", "history": history, **metadata},
    )
    return ScoredSample(Sample(prompt, (1,), (0.0,), text, StopReason.EOS, 0), outcome)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        sf.write(tmp_path / f"{name}.wav", np.full(160, 0.5, np.float32), 16_000)
    run = tmp_path / "run"
    run.mkdir()
    return run


def test_what_was_written_is_read(folder: Path) -> None:
    clips = folder.parent
    write_dialogue(
        folder,
        "before RL",
        [
            scored(clips, "x", "<think>what is my name</think> anna, sir", Scored(0.5, {"judge.level": 1.0})),
            scored(clips, "x#2", "sorry, i did not hear you", Failed("raised", "no"), turn=2),
            scored(clips, "y/2", "<think>what", Scored(0.0, {"judge.level": -2.0}), turn=2, session="y"),
        ],
    )
    found = read_dialogue(folder, "before RL")
    first, second, third = found.replies
    assert (first.reasoning, first.reply, first.turn) == ("what is my name", "anna, sir", 1)
    assert first.scores == {"judge.level": 1.0, "quality": 0.5}
    assert (second.session, second.turn, second.scores, second.whole) == ("x", 2, {}, True)
    assert [(t.role, t.text, t.reasoning) for t in second.history] == [
        ("user", "my name is anna", ""),
        ("assistant", "hello anna", "my name is anna"),
    ]
    assert second.history[0].audio == str(clips / "a.wav")
    assert second.audio == str(clips / "b.wav")
    assert (third.session, third.reply, third.whole) == ("y", "", False)
    assert found.mean("judge.level") == -0.5
    assert (found.mean(EVASIVE), found.mean("unscored"), found.mean("ended")) == pytest.approx((1 / 3, 1 / 3, 1.0))


def test_a_missing_label_names_those_that_are_there_and_bad_rows_are_named(folder: Path) -> None:
    with pytest.raises(RunError, match=r"no dialogue_after\.jsonl; labels of its dialogue evaluations: none"):
        read_dialogue(folder, "after")
    write_dialogue(folder, "before", [scored(folder, "x", "aye", Failed("raised", "no"))])
    with pytest.raises(RunError, match="evaluations: before"):
        read_dialogue(folder, "after")
    path = folder / "dialogue_before.jsonl"
    path.write_text(path.read_text() + '{"prompt_id": "x"}\nnot json\n')
    with pytest.raises(DataError, match=r"2 rows cannot be used\ndialogue_before\.jsonl row 2: .*'history'"):
        read_dialogue(folder, "before")


def test_turns_of_a_session_are_drawn_together() -> None:
    # Sessions of 2, 1 and 3 scored turns; one turn has no score.
    turns = {"a": [0.1, 0.3], "b": [0.9, None], "c": [0.5, 0.6, 0.7]}
    found = result("x", *(reply(s, n, v) for s, values in turns.items() for n, v in enumerate(values, 1)))
    sums, counts = np.array([0.4, 0.9, 1.8]), np.array([2, 1, 3])
    expected = wer_interval(sums, counts, confidence=0.9, resamples=2000)
    assert mean_interval(found, "quality", 0.9, 2000) == expected
    assert expected.point == pytest.approx(3.1 / 6)
    alone = wer_interval(np.array([0.1, 0.3, 0.9, 0.5, 0.6, 0.7]), np.ones(6), confidence=0.9, resamples=2000)
    assert (alone.low, alone.high) != (expected.low, expected.high)
    with pytest.raises(DataError, match="x: no reply has level"):
        mean_interval(found, "level", 0.9, 100)


def test_a_difference_is_of_turns_that_both_have_scored() -> None:
    before = result("before", reply("a", 1, 0.2), reply("a", 2, None), reply("b", 1, 0.4))
    after = result("after", reply("a", 1, 0.7), reply("a", 2, 1.0), reply("b", 1, 0.3))
    gap = difference(before, after, "quality", 0.95, 500)
    assert gap == wer_difference(np.array([0.2, 0.4]), np.array([0.7, 0.3]), np.array([1, 1]), resamples=500)
    assert difference(before, after, "none", 0.95, 500) is None
    with pytest.raises(DataError, match="before and after: evaluated on different turns"):
        difference(before, result("after", reply("a", 1, 0.7)), "quality", 0.95, 500)


def test_wins_by_score_with_the_interval_over_sessions() -> None:
    # Won, lost, tied, cut (loses unheard), silent (loses unheard), and not to be told.
    pairs = [(0.2, 0.6), (0.4, 0.3), (0.5, 0.5), (0.1, 0.9), (0.1, 0.9), (None, 0.5)]
    before = result("before", *(reply("ab"[i % 2], i, old) for i, (old, _) in enumerate(pairs)))
    after = result(
        "after",
        *(reply("ab"[i % 2], i, new, text="" if i == 4 else "aye", ended=i != 3) for i, (_, new) in enumerate(pairs)),
    )
    duel = win_rate(before, after, resamples=500)
    assert duel is not None
    assert (duel.wins, duel.ties, duel.losses, duel.left_out) == (1, 1, 3, 1)
    # Session a has places 0, 2, 4 (1, 0.5, 0), session b 1 and 3 (0, 0).
    assert duel.rate == wer_interval(np.array([1.5, 0.0]), np.array([3, 2]), resamples=500)
    none = result("none", *(reply("ab"[i % 2], i) for i in range(6)))
    assert win_rate(none, none) is None


def test_a_score_by_turn(folder: Path) -> None:
    one = [
        scored(folder, f"{s}#{n}", "aye", Scored(v, {"kept": v}), n)
        for s, n, v in [("a", 1, 1.0), ("b", 1, 0.5), ("a", 2, 0.0), ("b", 2, 0.0)]
    ]
    two = [
        scored(folder, f"{s}#{n}", "aye", Failed("raised", "") if n == 2 else Scored(v, {"kept": v}), n)
        for s, n, v in [("a", 1, 1.0), ("b", 1, 1.0), ("a", 2, 0.0), ("b", 2, 0.0)]
    ]
    start, end = write_dialogue(folder, "one", one), write_dialogue(folder, "two", two)
    means = by_turn(start, "kept", 0.95, 500)
    assert {turn: mean.point for turn, mean in means.items()} == {1: 0.75, 2: 0.0}
    assert (means[1].low, means[1].high) == (0.5, 1.0)
    assert list(by_turn(end, "kept", 0.95, 500)) == [1]
    lines = as_lines(turn_table({"one": start, "two": end}, "kept", 0.95, 500))
    assert lines[-2].split() == ["1", "2", "0.750", "[0.500,", "1.000]", "1.000", "[1.000,", "1.000]"]
    assert lines[-1].split() == ["2", "2", "0.000", "[0.000,", "0.000]", "-"]


def test_the_table_compares_and_stands_where_nothing_could_be_scored(folder: Path) -> None:
    start = result("before", reply("a", 1, 0.25), reply("b", 1, 0.75, text="i did not hear you"))
    end = result("after", reply("a", 1, 0.5), reply("b", 1, 1.0))
    lines = [line.split() for line in as_lines(table({"before": start, "after": end}, "t", 0.95, 500))]
    assert ["quality", "0.500", "0.750", "+0.250", "[+0.250,", "+0.250]"] in lines
    assert ["evasive", "0.500", "0.000", "-0.500", "[-1.000,", "+0.000]"] in lines
    assert ["win", "rate,", "%", "100.0", "[100.0,", "100.0]"] in lines
    silent = result("after", reply("a", 1), reply("b", 1))
    lines = [line.split() for line in as_lines(table({"before": start, "after": silent}, "t", 0.95, 500))]
    assert ["quality", "0.500", "nan", "-"] in lines
    assert ["win", "rate,", "%", "-", "-"] in lines


def test_a_judge_decides_wins_of_its_own_and_what_it_costs_is_no_score() -> None:
    def rated(label: str, *ratings: float) -> DialogueResult:
        replies = [reply(session, 1, 0.5) for session in "abcd"]
        scores = [{"quality": 0.5, "rubric.rubric": rating, "rubric.tokens": 90.0} for rating in ratings]
        return result(label, *(replace(r, scores=s) for r, s in zip(replies, scores, strict=True)))

    results = {"before": rated("before", 0.2, 0.2, 0.2, 0.2), "after": rated("after", 0.3, 0.3, 0.1, 0.2)}
    shown = as_lines(table(results, "t", 0.95, 500, won_by=("quality", "rubric.rubric")))
    rows = [line.split()[:-2] for line in shown]
    assert ["win", "rate,", "%", "50.0"] in rows  # ties alone
    assert ["win", "rate", "by", "rubric.rubric,", "%", "62.5"] in rows  # two won, one lost, one tie
    assert results["after"].names == ["quality", "rubric.rubric"]


def test_a_session_is_written_with_its_clips(folder: Path) -> None:
    clips = folder.parent
    rows = [
        scored(clips, "x", "<think>what *is*</think> anna", Scored(0.5, {})),
        scored(clips, "y", "aye", Scored(1.0, {})),
        scored(clips, "x#2", "", Failed("raised", "no"), turn=2),
        scored(clips, "y2", "of another row of the session", Scored(1.0, {}), turn=2, session="x"),
    ]
    found = write_dialogue(folder, "after", rows)
    assert longest_session(found) == "x"
    text = write_session(folder, {"before": found, "after": found}, "x").read_text()
    assert text.startswith("# Session x\n\nPersona: a butler\n\n## before\n")
    assert text.count("- **user**: what is my name ([listen](session/01.wav))\n  - *thinks*: what \\*is\\*\n") == 2
    assert "- **assistant**: (nothing)\n  - reference: your name is anna, sir\n" in text
    assert "quality 0.50" in text
    assert "another row" not in text
    assert longest_session(write_dialogue(folder, "rows", rows[1:2] + rows[3:])) == "y2"
    assert sorted(path.name for path in (folder / "session").iterdir()) == ["01.wav", "02.wav"]
    assert (folder / "session/01.wav").read_bytes() == (clips / "b.wav").read_bytes()
    with pytest.raises(DataError, match="after: no prompt 'z'"):
        write_session(folder, {"after": found}, "z")
