"""A gate's file and its metrics: what is read, derived and refused."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from rlhf_platform.errors import RecipeError
from rlhf_platform.evaluation.gate_entries import GateEntry, check_gate, column_of, is_higher_better, read_gate
from rlhf_platform.recipe.load import LoadedRecipe, load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
ASR, TTS = RECIPES / "asr/quickstart.yaml", RECIPES / "tts/ppo.yaml"


def written(folder: Path, text: str) -> Path:
    (folder / "gate.yaml").write_text(text)
    return folder / "gate.yaml"


def test_an_entry_has_defaults_and_a_recipe_relative_to_the_file(tmp_path: Path) -> None:
    text = """\
gate:
  - {recipe: asr/a.yaml, metric: wer}
  - {recipe: b.yaml, metric: mos, max_drop: 0, higher_is_better: true, set: [evaluation.max_clips=8]}
"""
    assert read_gate(written(tmp_path, text)) == [
        GateEntry(tmp_path / "asr/a.yaml", "wer", 0.02, None, ()),
        GateEntry(tmp_path / "b.yaml", "mos", 0.0, True, ("evaluation.max_clips=8",)),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gate: []", "expected one key, gate"),
        ("gates: [{recipe: a, metric: b}]", "expected one key, gate"),
        ("gate: {", "not valid YAML"),
        ("gate: [wer]", r"gate\[0\] is 'wer': expected a section with the keys recipe, metric, max_drop"),
        ("gate: [{recipe: a, metric: b, max_dorp: 1}]", r"gate\[0\].max_dorp: unknown key; did you mean max_drop\?"),
        ("gate: [{metric: b}]", r"gate\[0\].recipe is None: expected text"),
        ("gate: [{recipe: a, metric: b, max_drop: -1}]", r"max_drop is -1: expected a number of at least 0"),
        ("gate: [{recipe: a, metric: b, set: c=1}]", r"set is 'c=1': expected a list of key=value"),
        ("gate: [{recipe: a, metric: b, higher_is_better: up}]", r"higher_is_better is 'up': expected true or false"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        read_gate(written(tmp_path, text))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="No such file"):
        read_gate(tmp_path / "gate.yaml")


def test_a_metric_is_one_that_the_evaluation_measures() -> None:
    asr, tts = load_recipe(ASR).recipe, load_recipe(TTS).recipe
    assert column_of(asr, "wer") == "wer"
    # The terms of recipes/tasks/speech.yaml count a part of their answers.
    assert [column_of(tts, name) for name in ("cer", "mos", "cer.exact", "quality", "unscored")] == [
        "cer.cer",
        "mos.mos",
        "cer.exact",
        "quality",
        "unscored",
    ]
    with pytest.raises(RecipeError, match=r"metric is 'wer'.*allowed quality, ended, unscored, cer, mos, instruction"):
        column_of(tts, "wer")


def test_the_direction_is_in_the_name_or_is_told() -> None:
    assert [is_higher_better(name, None) for name in ("wer", "cer.cer", "unscored", "evasive")] == [False] * 4
    assert [is_higher_better(name, None) for name in ("mos.mos", "quality", "wer_reward", "a.reward")] == [True] * 4
    assert is_higher_better("f0_spread.semitones", False) is False
    with pytest.raises(RecipeError, match=r"'f0_spread.semitones'.*set higher_is_better"):
        is_higher_better("f0_spread.semitones", None)


def test_all_recipes_are_checked_at_once_and_each_is_loaded_once() -> None:
    asked: list[Path] = []

    def load(path: Path, overrides: Sequence[str]) -> LoadedRecipe:
        asked.append(path)
        return load_recipe(path, overrides)

    good = [GateEntry(TTS, "cer"), GateEntry(TTS, "mos"), GateEntry(ASR, "wer", set=("seed=1",)), GateEntry(ASR, "wer")]
    assert [found.recipe.seed for found in check_gate(good, load)] == [0, 1, 0]
    assert asked == [TTS, ASR, ASR]
    bad = [GateEntry(ASR, "cer"), GateEntry(ASR, "wer", set=("lr=1",)), GateEntry(TTS, "mos")]
    with pytest.raises(RecipeError) as error:
        check_gate(bad, load_recipe)
    first, second = str(error.value).splitlines()
    assert "quickstart.yaml: metric is 'cer'" in first
    assert "quickstart.yaml: lr: unknown key" in second
