"""What is counted of a model without weights is what the real one has."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from policies.adapter import PolicyAdapter
from policies.batch import make_batch
from policies.dimensions import Layers
from policies.empty import empty_model
from policies.load import load_adapter
from policies.lora import add_lora
from policies.policy import Policy
from policies.tiny import build_tiny
from rlhf_platform.errors import RecipeError
from rlhf_platform.recipe.backbone import BackboneConfig, TinyBackbone
from rlhf_platform.recipe.schema import LearnerConfig, LoraConfig
from rlhf_platform.types import Prompt
from tests.layouts import CASES, HEARING, LAYOUTS, WHISPER_WINDOW

LEARNERS = {
    "encoder too": LearnerConfig(freeze_encoder=False),
    "decoder": LearnerConfig(freeze_encoder=True),
    "lora": LearnerConfig(lora=LoraConfig(rank=3)),
    "lora on queries": LearnerConfig(lora=LoraConfig(rank=5, targets=["q_proj"])),
}


def real(adapter: PolicyAdapter, learner: LearnerConfig, dtype: torch.dtype = torch.float32) -> Policy:
    """As the learner makes it."""
    model = adapter.load_model(dtype)
    if learner.lora.rank:
        add_lora(adapter, model, learner.lora, "learner.lora", 0)
    return Policy(adapter, model, 1.0, learner.freeze_encoder).eval()


def shapes(model: nn.Module) -> dict[str, tuple[torch.Size, bool]]:
    return {name: (p.shape, p.requires_grad) for name, p in model.named_parameters()}


@pytest.mark.parametrize("learner", LEARNERS.values(), ids=LEARNERS.keys())
@pytest.mark.parametrize(("layout", "tied"), CASES)
def test_every_parameter_of_the_real_model_is_counted(
    layout: str, tied: bool, learner: LearnerConfig, tmp_path: Path
) -> None:
    LAYOUTS[layout].build(tmp_path, tied)
    backbone = BackboneConfig(adapter=LAYOUTS[layout].adapter, path=str(tmp_path), window=WHISPER_WINDOW)
    for file in tmp_path.iterdir():
        if file.name != "config.json":
            file.rename(file.with_name("away-" + file.name))
    counted = empty_model(backbone, learner).model
    for file in tmp_path.glob("away-*"):
        file.rename(file.with_name(file.name.removeprefix("away-")))
    assert all(parameter.is_meta for parameter in counted.parameters())
    assert shapes(counted) == shapes(real(load_adapter(backbone.adapter, tmp_path), learner).model)


def test_a_tiny_backbone_is_counted_before_it_is_built(tmp_path: Path) -> None:
    tiny = TinyBackbone(hidden_size=64, text_pieces=260, audio_slots=8)
    build_tiny(tiny, ["alpha bravo charlie"], 4.0, tmp_path)
    counted = empty_model(BackboneConfig(tiny=tiny), LearnerConfig()).model
    assert shapes(counted) == shapes(real(load_adapter("qwen3_asr", tmp_path), LearnerConfig()).model)


def test_pretrained_backbones_are_counted_without_their_packages() -> None:
    whisper = BackboneConfig(adapter="whisper", build="whisper_tiny_en", window=15)
    # README.md prints what a run's learner counted.
    assert trainable(empty_model(whisper, LearnerConfig()).model) == 29_551_872
    small = BackboneConfig(adapter="qwen2_audio", build="small", window=15)
    assert 142e6 < sum(p.numel() for p in empty_model(small, LearnerConfig()).model.parameters()) < 144e6


def trainable(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("layout", ["whisper", "qwen2_audio"])
def test_a_shorter_window_has_the_positions_that_cutting_it_leaves(layout: str, tmp_path: Path) -> None:
    LAYOUTS[layout].build(tmp_path / "whole", True)
    adapter = load_adapter(layout, tmp_path / "whole")
    adapter.cut_window(2, tmp_path / "cut")
    counted = empty_model(BackboneConfig(adapter=layout, path=str(tmp_path / "whole"), window=2), LearnerConfig())
    assert shapes(counted.model) == shapes(real(load_adapter(layout, tmp_path / "cut"), LearnerConfig()).model)


def test_without_a_configuration_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"backbone.path is 'nobody/nothing': a hub name .* config.json, or run"):
        empty_model(BackboneConfig(path="nobody/nothing"), LearnerConfig())
    with pytest.raises(RecipeError, match=r"no config\.json can be read there"):
        empty_model(BackboneConfig(path=str(tmp_path)), LearnerConfig())
    LAYOUTS["whisper"].build(tmp_path, True)
    with pytest.raises(RecipeError, match=r"backbone\.adapter is qwen3_asr: .* is a checkpoint of whisper"):
        empty_model(BackboneConfig(path=str(tmp_path)), LearnerConfig())


class Saved:
    """Bytes that autograd keeps for backward, parameters aside."""

    def __init__(self, model: nn.Module) -> None:
        self._known = {p.untyped_storage().data_ptr() for p in model.parameters()}
        self._kept: dict[int, Tensor] = {}

    def __call__(self, tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in self._known:
            self._kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    @property
    def size(self) -> int:
        return sum(tensor.untyped_storage().nbytes() for tensor in self._kept.values())


def kept(layers: Layers, positions: int, dtype: torch.dtype) -> int:
    same, single = layers.kept()
    return layers.count * positions * (same * dtype.itemsize + single * 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_decoder_keeps_for_backward_what_its_dimensions_say(
    layout: str, dtype: torch.dtype, clips: list[Prompt], tmp_path: Path
) -> None:
    """Within 15 %: the last norm and scales of norms are not counted, and these layers are few and narrow. Each layer
    keeps a mask (rows, S, S) when the rows are padded."""
    LAYOUTS[layout].build(tmp_path, LAYOUTS[layout].ties[-1])
    adapter = load_adapter(LAYOUTS[layout].adapter, tmp_path)
    policy = real(adapter, LearnerConfig(), dtype)
    pieces = adapter.completion_token_ids
    batch = make_batch([adapter.encode(clip) for clip in clips[:2]], [0, 0, 1, 1], [[pieces[3]] * 20] * 4, 0)
    with torch.no_grad():
        heard = policy.encode(batch)
    saved = Saved(policy)
    with torch.autograd.graph.saved_tensors_hooks(saved, lambda tensor: tensor):
        adapter.hidden_states(policy.model, batch, heard)
    backbone = BackboneConfig(adapter=LAYOUTS[layout].adapter, path=str(tmp_path), window=WHISPER_WINDOW)
    dimensions = empty_model(backbone, LearnerConfig()).dimensions
    layers, (rows, length) = dimensions.decoder, batch.input_ids.shape
    expected = kept(layers, rows * length, dtype)
    if layers.crosses:
        expected += layers.count * rows * len(heard[0]) * 2 * layers.attention_width * dtype.itemsize
    masks = layers.count * rows * length * length * dtype.itemsize
    assert expected / 1.15 < saved.size < (expected + masks) * 1.15


@pytest.mark.parametrize("layout", HEARING)
def test_the_encoder_keeps_for_backward_what_its_dimensions_say(
    layout: str, clips: list[Prompt], tmp_path: Path
) -> None:
    """Whole windows, since convolutions pad a clip to one; within 25 %, for so small a one."""
    LAYOUTS[layout].build(tmp_path, LAYOUTS[layout].ties[-1])
    adapter = load_adapter(LAYOUTS[layout].adapter, tmp_path)
    learner = LearnerConfig(freeze_encoder=False)
    policy = real(adapter, learner)
    batch = make_batch([adapter.encode(replace(clips[3], duration=WHISPER_WINDOW))], [0], [[]], 0)
    saved = Saved(policy)
    with torch.autograd.graph.saved_tensors_hooks(saved, lambda tensor: tensor):
        policy.encode(batch)
    backbone = BackboneConfig(adapter=LAYOUTS[layout].adapter, path=str(tmp_path), window=WHISPER_WINDOW)
    found = empty_model(backbone, learner).dimensions
    assert found.encoder is not None
    seconds = WHISPER_WINDOW if found.encoder.padded else 3.0  # the clip of 2.9 s, in whole chunks
    positions = found.encoder_positions(seconds)
    expected = kept(found.encoder.layers, positions, torch.float32) + positions * found.encoder.front_kept * 4
    assert expected == pytest.approx(saved.size, rel=0.25)


@pytest.mark.parametrize("layout", HEARING)
def test_clips_take_the_positions_that_the_encoder_gives(layout: str, clips: list[Prompt], tmp_path: Path) -> None:
    LAYOUTS[layout].build(tmp_path, LAYOUTS[layout].ties[-1])
    adapter = load_adapter(LAYOUTS[layout].adapter, tmp_path)
    backbone = BackboneConfig(adapter=LAYOUTS[layout].adapter, path=str(tmp_path), window=WHISPER_WINDOW)
    found = empty_model(backbone, LearnerConfig()).dimensions
    policy = real(adapter, LearnerConfig())
    assert found.encoder is not None
    seconds = WHISPER_WINDOW if found.encoder.padded and layout == "whisper" else clips[3].duration
    (states,) = policy.encode(make_batch([adapter.encode(clips[3])], [0], [[]], 0))
    assert states.shape[0] == pytest.approx(found.output_positions(seconds), abs=1)
    assert states.shape[1] == found.encoder.output_width
