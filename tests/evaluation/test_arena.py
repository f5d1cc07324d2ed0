"""Systems compared by what they said: rows, judges, win rates, strengths, blind pairs."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from scipy.optimize import minimize

from rewards.pool import RewardPool
from rlhf_platform.data.blind_key import read_key
from rlhf_platform.errors import DataError, RunError
from rlhf_platform.evaluation.arena import Duel, duels, log_strengths, outcome, ranking, tally
from rlhf_platform.evaluation.blind import export
from rlhf_platform.evaluation.judging import by_judge, by_score
from rlhf_platform.evaluation.utterances import Utterance, find_utterances, read_utterances

JUDGES = """
import numpy as np

def loud(sample):
    if sample.reference == "text 3":
        raise ValueError("as asked")
    return {"level": float(np.abs(sample.speech).max()), "tokens": len(sample.tokens)}
"""


def row(prompt: int, **changes: Any) -> dict[str, Any]:
    return {
        "prompt_id": f"p{prompt}",
        "text": f"text {prompt}",
        "instruction": "slowly" if prompt % 2 else "",
        "wav": f"wav/{prompt}.wav",
        "ended": True,
        "reference": "../ref.wav",
        "metadata": {"asked": {"rate": "slow"}},
        "scores": {"mos": float(prompt)},
        "tokens": [prompt, 7],
    } | changes


def write(folder: Path, *rows: Mapping[str, Any], level: float = 0.5) -> Path:
    """A run's evaluation; the sound of prompt i is i hundred samples long."""
    (folder / "wav").mkdir(parents=True)
    sf.write(folder.parent / "ref.wav", np.zeros(8_000), 16_000)
    for number in range(1, 9):
        sf.write(folder / "wav" / f"{number}.wav", np.full(100 * number, level), 16_000, subtype="FLOAT")
    path = folder / "speech_after_RL.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return path


def utterance(**changes: Any) -> Utterance:
    whole = {"prompt_id": "p", "text": "t", "instruction": "", "wav": Path("p.wav"), "ended": True}
    return Utterance(**{**whole, "reference": Path("ref.wav"), **changes})


def test_rows_are_read_with_paths_and_the_scores_that_came_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a", row(1, scores={"mos": 3, "cer": None}), row(2, wav=None, ended=False, tokens=None))
    first, second = read_utterances(path).values()
    assert (first.prompt_id, first.text, first.instruction, first.language) == ("p1", "text 1", "slowly", "en")
    assert (first.wav, first.reference) == (tmp_path / "a/wav/1.wav", tmp_path / "ref.wav")
    assert (first.scores, first.tokens, first.whole) == ({"mos": 3.0}, (1, 7), True)
    assert (second.wav, second.tokens, second.whole) == (None, None, False)
    assert find_utterances(tmp_path / "a", "after_RL") == path
    with pytest.raises(RunError, match=r"no speech_before\.jsonl; labels of its speech evaluations: after_RL"):
        find_utterances(tmp_path / "a", "before")


def test_bad_rows_are_told_at_once(tmp_path: Path) -> None:
    missing = {key: value for key, value in row(1).items() if key != "text"}
    bad = [missing, row(2, ended="yes"), row(3, wav="no.wav"), row(4, scores={"mos": float("nan")}), row(5), row(5)]
    path = write(tmp_path / "a", *bad)
    with pytest.raises(DataError) as error:
        read_utterances(path)
    assert [line.partition(": ")[2] for line in str(error.value).splitlines()] == [
        "5 rows cannot be used",
        "no 'text'; every row has prompt_id, text, instruction, ended, reference and wav",
        "ended is true/false, not text 'yes'",
        "wav 'no.wav' does not exist; paths are relative to the folder of the file",
        "score mos is nan, not a finite number",
        "prompt_id 'p5' is there twice; a prompt counts once",
    ]


@pytest.mark.parametrize(
    ("a", "b", "qualities", "margin", "result"),
    [
        ({}, {}, (2.0, 1.0), 0.0, 1.0),
        ({}, {}, (1.0, 2.0), 0.5, 0.0),
        ({}, {}, (1.0, 1.5), 0.5, 0.5),
        ({}, {}, (1.0, 1.0), 0.0, 0.5),
        ({}, {}, (3.2, 3.0), 0.2, 0.5),
        ({"ended": False}, {}, (9.0, 1.0), 0.0, 0.0),
        ({}, {"wav": None}, (1.0, None), 0.0, 1.0),
        ({"wav": None}, {"ended": False}, (None, 5.0), 0.0, 0.5),
        ({}, {}, (None, 1.0), 0.0, None),
    ],
)
def test_the_better_wins_and_what_did_not_end_loses(
    a: dict[str, Any], b: dict[str, Any], qualities: tuple[float, float], margin: float, result: float | None
) -> None:
    assert outcome(utterance(**a), utterance(**b), *qualities, margin) == result


def test_a_win_rate_counts_ties_half_and_has_the_interval_of_draws_of_prompts() -> None:
    outcomes = [1.0] * 30 + [0.5] * 10 + [0.0] * 10
    duel = tally("new", "old", [*outcomes, None, None])
    assert (duel.wins, duel.ties, duel.losses, duel.left_out) == (30, 10, 10, 2)
    assert duel.rate.point == pytest.approx(0.7)
    drawn = np.random.default_rng(1).choice(outcomes, size=(20_000, 50)).mean(axis=1)
    assert [duel.rate.low, duel.rate.high] == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.011)
    turned = tally("old", "new", [1 - o for o in outcomes])
    assert (turned.wins, turned.losses) == (10, 30)
    assert turned.rate.point == pytest.approx(0.3)


def test_duels_are_over_the_prompts_that_both_have(tmp_path: Path) -> None:
    a = read_utterances(write(tmp_path / "a", row(1), row(2), row(3)))
    b = read_utterances(write(tmp_path / "b", row(3, scores={"mos": 1}), row(2), row(4)))
    both = {"a": a, "b": b}
    (duel,) = duels(both, {name: by_score("mos", name, said) for name, said in both.items()})
    assert (duel.wins, duel.ties, duel.losses, duel.left_out) == (1, 1, 0, 0)


def test_prompts_that_differ_or_are_not_there_cannot_be_compared(tmp_path: Path) -> None:
    a = read_utterances(write(tmp_path / "a", row(1)))
    b = read_utterances(write(tmp_path / "b", row(1, instruction="fast")))
    c = read_utterances(write(tmp_path / "c", row(2)))
    with pytest.raises(DataError, match=r"a and b: prompt 'p1' is \('text 1', 'slowly'\) and \('text 1', 'fast'\)"):
        duels({"a": a, "b": b}, {"a": {}, "b": {}})
    with pytest.raises(DataError, match="a and c: no prompt id in common"):
        duels({"a": a, "c": c}, {"a": {}, "c": {}})
    with pytest.raises(DataError, match="a and d: not one of 1 prompts could be judged"):
        duels({"a": a, "d": a}, {"a": {}, "d": {}})
    with pytest.raises(DataError, match="--score is 'wer': no utterance of a has it; it has mos"):
        by_score("wer", "a", a)


def test_a_judge_hears_what_was_said_and_its_failures_are_no_numbers(tmp_path: Path) -> None:
    (tmp_path / "judges.py").write_text(JUDGES)
    rows = (row(1), row(2, ended=False), row(3), row(4))
    said = read_utterances(write(tmp_path / "a", *rows, level=0.25))
    seen: list[tuple[int, int]] = []
    with RewardPool.of("judges.py:loud", tmp_path) as pool:
        found, failed = by_judge(pool, said, lambda done, total: seen.append((done, total)))
    assert found == {"p1": 2.25, "p4": 2.25}
    assert [(each.kind, "as asked" in each.message) for each in failed] == [("raised", True)]
    assert seen == [(3, 3)]


def test_strengths_are_those_of_a_worked_example() -> None:
    # The example of https://en.wikipedia.org/wiki/Bradley-Terry_model, whose strengths of A, B, C and D are
    # 0.640, 1.043, 0.660 and 2.270, of geometric mean 1.
    wins = np.array([[0, 2, 0, 1], [3, 0, 5, 0], [0, 3, 0, 1], [4, 0, 3, 0]], dtype=np.float64)
    assert np.exp(log_strengths(wins)) == pytest.approx([0.640, 1.043, 0.660, 2.270], abs=6e-4)


def test_strengths_are_the_most_likely_ones() -> None:
    wins = np.random.default_rng(0).integers(1, 20, size=(5, 5)).astype(np.float64)
    np.fill_diagonal(wins, 0.0)

    def minus_log_likelihood(logs: np.ndarray) -> float:
        return float((wins * np.log1p(np.exp(logs[None, :] - logs[:, None]))).sum())

    best = minimize(minus_log_likelihood, np.zeros(5), tol=1e-10).x
    assert log_strengths(wins) == pytest.approx(best - best.mean(), abs=1e-4)


def test_the_ranking_follows_the_duels_and_has_a_place_for_who_won_all() -> None:
    def duel(first: str, second: str, *told: int) -> Duel:
        wins, ties, losses = told
        return tally(first, second, [1.0] * wins + [0.5] * ties + [0.0] * losses)

    ranks = ranking([duel("c", "a", 2, 0, 8), duel("b", "a", 3, 2, 5), duel("b", "c", 7, 0, 3)])
    assert [rank.system for rank in ranks] == ["a", "b", "c"]
    assert sum(rank.points for rank in ranks) == pytest.approx(0.0, abs=1e-6)
    # Of two, by hand: 10 wins of 10 and half a win each are odds of 10.5 to 0.5, that is 400 log10(21) points.
    first, last = ranking([duel("loser", "winner", 0, 0, 10)])
    assert (first.system, last.system) == ("winner", "loser")
    assert first.points - last.points == pytest.approx(400 * np.log10(21))


def sheet(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [*csv.DictReader(file)]


def test_blind_pairs_are_sounds_and_a_sheet_and_a_key_apart(tmp_path: Path) -> None:
    rows = [row(number) for number in range(1, 9)]
    a = read_utterances(write(tmp_path / "runs/a", *rows[:6], row(7, wav=None, ended=False), row(8, ended=False)))
    b = read_utterances(write(tmp_path / "runs/b", *[{**each, "tokens": None} for each in rows], level=0.1))
    out = tmp_path / "blind"
    assert export({"a": a, "b": b}, out, seed=3) == 7  # prompt 7 has no sound of a

    assert {path.name for path in out.iterdir()} == {"key.json", "raters"}
    handed = out / "raters"
    names = [f"{number:04d}" for number in range(1, 8)]
    assert sorted(path.name for path in (handed / "pairs").iterdir()) == [f"{n}_{s}.wav" for n in names for s in "ab"]
    assert (handed / "ratings.csv").read_text().splitlines()[:2] == ["pair,rater,answer,reason", "0001,,,"]
    assert len((handed / "README.txt").read_text().splitlines()) == 5

    key = read_key(out / "key.json")
    levels, tokens = {"a": 0.5, "b": 0.1}, {"a": True, "b": False}
    for told in sheet(handed / "prompts.csv"):
        pair = key[told["pair"]]
        assert (pair.prompt.reference, pair.prompt.duration) == (told["text"], 0.5)
        assert pair.prompt.audio == str(tmp_path / "runs/ref.wav")
        assert told["instruction"] == a[pair.prompt.id].instruction
        for side, letter in ((pair.a, "a"), (pair.b, "b")):
            assert side.answer.audio == str(handed / "pairs" / f"{told['pair']}_{letter}.wav")
            samples, _ = sf.read(side.answer.audio)
            assert samples.max() == pytest.approx(levels[side.system])
            assert len(samples) == 100 * int(pair.prompt.id[1:])
            assert (side.answer.tokens is not None) is tokens[side.system]
    assert {pair.a.system for pair in key.values()} == {"a", "b"}
    order = [pair.prompt.id for pair in key.values()]
    assert sorted(order) != order


def test_blind_pairs_are_the_same_for_a_seed_and_never_overwrite_a_key(tmp_path: Path) -> None:
    rows = [row(number) for number in range(1, 9)]
    systems = {name: read_utterances(write(tmp_path / "runs" / name, *rows)) for name in "abc"}
    keys = []
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        assert export(systems, tmp_path / name, seed) == 24  # three pairs of systems
        keys.append([(p.prompt.id, p.a.system, p.b.system) for p in read_key(tmp_path / name / "key.json").values()])
    assert keys[0] == keys[1]
    assert keys[0] != keys[2]
    with pytest.raises(DataError, match=r"has the key\.json of other pairs, whose ratings may be under way"):
        export(systems, tmp_path / "one")


def test_nothing_to_hear_is_nothing_to_rate(tmp_path: Path) -> None:
    silent = read_utterances(write(tmp_path / "a", row(1, wav=None, ended=False)))
    with pytest.raises(DataError, match="no prompt has a sound of two systems"):
        export({"a": silent, "b": silent}, tmp_path / "blind")
