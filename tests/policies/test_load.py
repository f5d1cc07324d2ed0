"""A checkpoint that cannot be used is refused in one line before anything is loaded."""

from pathlib import Path

import pytest

from policies.load import ADAPTERS, decoder_positions, load_adapter
from policies.whisper import WhisperAdapter
from rlhf_platform.errors import RecipeError
from rlhf_platform.recipe import backbone
from tests.layouts import LAYOUTS, WHISPER_WINDOW, build_whisper


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whisper") / "checkpoint"
    build_whisper(path, tied=True)
    return path


def test_every_adapter_that_a_recipe_may_name_is_there_and_tested() -> None:
    assert set(backbone.ADAPTERS) == set(ADAPTERS)
    # A judge's layout is asked in chat messages and no clip: tests/policies/test_text_lm.py has it.
    assert set(ADAPTERS) - {"text_lm"} == {layout.adapter for layout in LAYOUTS.values()}
    assert set(backbone.BUILDS.values()) <= set(ADAPTERS)


def test_a_checkpoint_of_another_architecture_is_refused_with_the_adapter_that_reads_it(whisper: Path) -> None:
    with pytest.raises(RecipeError) as raised:
        load_adapter("qwen3_asr", whisper)
    assert str(raised.value) == (
        f"backbone.adapter is qwen3_asr: '{whisper}' is a checkpoint of whisper, this adapter reads qwen3_asr; "
        "set backbone.adapter=whisper"
    )


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"^backbone\.path is .*: no checkpoint can be read there \("):
        load_adapter("whisper", tmp_path)


def test_a_window_that_the_positions_do_not_cover_is_refused(whisper: Path, tmp_path: Path) -> None:
    adapter = WhisperAdapter(whisper)
    assert adapter.window() == WHISPER_WINDOW
    adapter.cut_window(3, tmp_path / "cut")
    cut = WhisperAdapter(tmp_path / "cut")
    assert cut.window() == 3
    assert cut.processor.feature_extractor.n_samples == 3 * 16_000
    config = tmp_path / "cut" / "config.json"
    config.write_text(config.read_text().replace('"max_source_positions": 150', '"max_source_positions": 100'))
    with pytest.raises(RecipeError, match=r"its processor pads clips to 3 s, its encoder has positions for 2 s"):
        WhisperAdapter(tmp_path / "cut")


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_decoders_positions_are_read_in_every_layout(name: str, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    layout.build(tmp_path, layout.ties[0])
    built_with = {"whisper": 64, "codec_lm": 128, "qwen3_asr": 512}
    assert decoder_positions(tmp_path) == built_with.get(layout.adapter, 256)


def test_a_vllm_without_the_architecture_is_named(whisper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rollout.engine import RolloutEngine

    monkeypatch.setattr(WhisperAdapter, "vllm_architecture", "WhisperOfTomorrow")
    with pytest.raises(RecipeError, match=r"^backbone\.adapter is whisper: this vLLM \(0\.32\S*\) does not know "):
        RolloutEngine("whisper", whisper, "float32", max_tokens=64, max_sequences=4, kv_cache_gib=0.1)
