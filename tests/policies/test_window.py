"""Layouts that pad every clip to one window: it can be cut, and the encoder's positions are no parameters to learn."""

from pathlib import Path

import pytest
import torch

from policies.load import load_adapter
from rlhf_platform.errors import RecipeError
from rlhf_platform.types import Prompt
from tests.layouts import LAYOUTS

WINDOWED = ["qwen2_audio", "whisper"]


@pytest.mark.parametrize("name", WINDOWED)
def test_a_cut_window_keeps_the_first_positions(name: str, clips: list[Prompt], tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    layout.build(tmp_path / "start", layout.ties[0])
    whole = load_adapter(layout.adapter, tmp_path / "start")
    assert whole.window() == 4.0
    whole.cut_window(2.0, tmp_path / "cut")
    cut = load_adapter(layout.adapter, tmp_path / "cut")
    assert cut.window() == 2.0
    features = cut.encode(clips[1]).clips[0].features
    assert features is not None
    assert features.shape[1] == 200
    before = dict(whole.load_model(torch.float32).named_parameters())
    for key, parameter in cut.load_model(torch.float32).named_parameters():
        assert torch.equal(parameter, before[key][: len(parameter)]), key
        if "audio_tower.embed_positions" in key or "encoder.embed_positions" in key:
            assert len(parameter) == 100
            assert not parameter.requires_grad
        else:
            assert parameter.shape == before[key].shape
            assert parameter.requires_grad


@pytest.mark.parametrize("name", WINDOWED)
def test_part_of_a_second_is_no_window(name: str, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    layout.build(tmp_path / "start", layout.ties[0])
    with pytest.raises(RecipeError, match=r"^backbone\.window is 2\.5: this layout's window is whole seconds; 3$"):
        load_adapter(layout.adapter, tmp_path / "start").cut_window(2.5, tmp_path / "cut")
