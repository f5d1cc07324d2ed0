"""The stages of a warm start: in order, each from the one before, each made once."""

from pathlib import Path
from typing import Any

import pytest

from rlhf_platform.recipe.schema import BackboneConfig, Recipe, SFTConfig
from rlhf_platform.tracking.progress import Display
from rlhf_platform.train import prepare
from rlhf_platform.train.prepare import Data, prepare_model


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """(stage, the checkpoint it starts from) of every stage that is trained rather than found."""
    calls: list[tuple[str, str]] = []

    def train(recipe: Recipe, stage: str, model: Any, prompts: Any, out: Path, display: Display) -> None:
        calls.append((stage, str(model)))
        (out / "config.json").write_text(stage)

    monkeypatch.setattr(prepare, "_train", train)
    return calls


def test_the_adaptor_is_taught_first_and_each_stage_is_made_once(
    trained: list[tuple[str, str]], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    def prepared(align: int, sft: int, **section: object) -> str:
        recipe = Recipe(name="test", cache_dir=str(tmp_path), backbone=BackboneConfig(path=str(tiny_checkpoint)))
        recipe.align, recipe.sft = SFTConfig(steps=align), SFTConfig(steps=sft, **section)  # type: ignore[arg-type]
        return str(prepare_model(recipe, Data([], [], [], "digest"), Display()))

    start = str(tiny_checkpoint)
    assert prepared(0, 0) == start
    assert trained == []
    both = prepared(3, 5)
    (first, begin), (second, aligned) = trained
    assert (first, begin, second) == ("align", start, "sft")
    assert Path(aligned, "config.json").read_text() == "align"
    assert Path(both, "config.json").read_text() == "sft"

    trained.clear()
    assert prepared(3, 5) == both
    assert trained == []
    assert prepared(3, 0) == aligned
    assert trained == []
    assert prepared(3, 5, freeze_encoder=True) != both
    assert trained == [("sft", aligned)]

    trained.clear()
    alone = prepared(0, 5)
    assert trained == [("sft", start)]
    assert alone not in (both, aligned)
