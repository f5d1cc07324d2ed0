"""`rlhf judge calibrate`: what it prints and writes, and what it refuses."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlhf_platform.cli.main import app
from rlhf_platform.data.labelled import write_labelled
from tests.judge_endpoint import Endpoint, judging
from tests.train.judging.test_calibrating import labelled, shorter

ROOT = Path(__file__).parents[2]


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    """A recipe whose judge takes the shorter reply, in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JUDGE_KEY", "sesame")
    write_labelled("pairs.jsonl", labelled())
    with judging(shorter) as endpoint:
        Path("recipe.yaml").write_text(
            f"""
extends: {ROOT}/recipes/asr/quickstart.yaml
name: mine
rewards:
  - fn: rewards.asr:wer_reward
  - {{fn: "rewards.judge:Preference", judge: short, part: preference}}
judges:
  - name: short
    url: {endpoint.url}
    api_key_env: JUDGE_KEY
    calibration: {{pairs: pairs.jsonl, minimum: 0.7}}
"""
        )
        yield endpoint


def rlhf(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["judge", "calibrate", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_figures_are_printed_and_written(judge: Endpoint) -> None:
    code, out, errors = rlhf("recipe.yaml")
    assert (code, errors) == (0, "")
    rows = {line.partition("  ")[0]: line.split() for line in out.splitlines()}
    assert out.splitlines()[:2] == ["judge 'short'", "4 pairs judged, 0 of them ties"]
    assert rows["accuracy of mean levels"][4] == "75.0"
    assert rows["order bias"][2] == "+0.0"
    written = json.loads(Path("runs/mine-judge/calibration.json").read_text())["judges"]["short"]
    assert written["calibration"]["accuracy"]["point"] == 0.75
    assert written["calibration"]["confusion"]["a"] == {"-2": 0, "-1": 1, "0": 0, "1": 1, "2": 0}
    assert [ruling["id"] for ruling in written["rulings"]] == ["p0", "p1", "p2", "p3"]
    assert set(written) == {"calibration", "rulings"}


def test_the_key_is_sent_and_never_shown(judge: Endpoint) -> None:
    _, out, errors = rlhf("recipe.yaml")
    assert judge.keys == {"Bearer sesame"}
    assert "sesame" not in out + errors + Path("runs/mine-judge/calibration.json").read_text()


def test_an_ablation_and_attacks_are_tables_of_their_own(judge: Endpoint) -> None:
    code, out, _ = rlhf("recipe.yaml", "--ablate", "--attacks", "--limit", "2")
    assert code == 0
    assert "24 trials of 12 attacks on 2 pairs; 0 failed" in out
    # No verdict was turned; of two pairs that says little: 1 - 0.025 ** (1 / 2).
    assert out.splitlines()[-3].startswith("bound: wins of a bad reply rise by at most 84.2 % points")
    written = json.loads(Path("runs/mine-judge/calibration.json").read_text())["judges"]["short"]
    assert [(each["name"], each["swap"]) for each in written["ablation"]][-2:] == [
        ("expected", False),
        ("expected", True),
    ]
    assert (written["injection"]["bound"], written["injection"]["trials"]) == (pytest.approx(0.8419, abs=1e-4), 24)


def test_below_the_minimum_is_exit_code_1_with_the_figures_written(judge: Endpoint) -> None:
    code, _, errors = rlhf("recipe.yaml", "judges.0.calibration.minimum=0.9")
    assert code == 1
    assert "judges[0].calibration.minimum is 0.9: judge 'short' on 4 labelled pairs, agrees with 0.750" in errors
    assert Path("runs/mine-judge/calibration.json").is_file()


def test_a_judge_that_is_not_there_is_exit_code_1(judge: Endpoint) -> None:
    code, out, errors = rlhf("recipe.yaml", "judges.0.url=http://127.0.0.1:1/v1", "--ablate", "--attacks")
    assert code == 1
    assert "0 pairs judged, 0 of them ties; failed: 4 unavailable" in out
    assert "judges[0].calibration: judge 'short' gave no verdict on 4 of 4 pairs (4 unavailable)" in errors


def test_a_recipe_without_judges_is_refused(judge: Endpoint) -> None:
    code, _, errors = rlhf(str(ROOT / "recipes/asr/quickstart.yaml"))
    assert (code, errors) == (2, "judges: the recipe has none; add one (docs/judges.md)\n")


def test_pairs_and_split_may_be_given(judge: Endpoint) -> None:
    write_labelled("other.jsonl", labelled()[:3])
    assert "3 pairs judged" in rlhf("recipe.yaml", "--pairs", "other.jsonl")[1]
    code, _, errors = rlhf("recipe.yaml", "--split", "heldout")
    assert code == 2
    assert "no labelled replies of split 'heldout'; it has calibration" in errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--judge", "long"), "--judge is 'long': the recipe has short"),
        (("--pairs", "none.jsonl"), "no such file of labelled replies"),
        (("judges.0.calibration.pairs=null",), "judges[0].calibration.pairs: there are no labelled replies"),
    ],
)
def test_what_cannot_be_measured_is_one_line(arguments: tuple[str, ...], said: str, judge: Endpoint) -> None:
    code, _, errors = rlhf("recipe.yaml", *arguments)
    assert code == 2
    assert said in errors
    assert len(errors.splitlines()) == 1
    assert judge.requests == []
