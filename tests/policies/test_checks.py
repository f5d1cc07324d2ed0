"""Checkpoints whose processor does not fit their model are refused in one line, before anything is loaded."""

import json
from pathlib import Path

import pytest

from policies.load import load_adapter
from rlhf_platform.errors import RecipeError
from tests.layouts import HEARING, LAYOUTS


def rewrite(path: Path, **changes: object) -> None:
    """Change fields of the feature extractor."""
    file = path / "processor_config.json"
    config = json.loads(file.read_text())
    config["feature_extractor"] |= changes
    file.write_text(json.dumps(config))


def forget(path: Path, token: str) -> None:
    """Take a control token out of the tokenizer's files, as if it had never been added."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        file = path / name
        config = json.loads(file.read_text())
        config["added_tokens"] = [t for t in config.get("added_tokens", []) if t["content"] != token]
        file.write_text(json.dumps({key: value for key, value in config.items() if value != token}))


@pytest.fixture
def checkpoint(name: str, tmp_path: Path) -> Path:
    layout = LAYOUTS[name]
    layout.build(tmp_path, layout.ties[0])
    return tmp_path


@pytest.mark.parametrize("name", HEARING)
def test_a_processor_of_another_sample_rate_is_refused(name: str, checkpoint: Path) -> None:
    rewrite(checkpoint, sampling_rate=8000)
    line = (
        rf"^backbone\.path is '{checkpoint}': its processor takes audio at 8000 Hz, its encoder was trained at 16000 Hz"
    )
    with pytest.raises(RecipeError, match=line):
        load_adapter(LAYOUTS[name].adapter, checkpoint)


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("qwen3_asr", "<|audio_pad|>"),
        ("qwen3_asr", "<asr_text>"),
        ("qwen2_audio", "<|AUDIO|>"),
        ("qwen2_audio", "<|im_start|>"),
        ("qwen2_5_omni_thinker", "<|AUDIO|>"),
        ("qwen2_5_omni_thinker", "<|IMAGE|>"),
    ],
)
def test_a_vocabulary_without_a_token_of_the_prompt_is_refused(name: str, token: str, checkpoint: Path) -> None:
    forget(checkpoint, token)
    with pytest.raises(
        RecipeError, match=rf"^backbone\.path is '{checkpoint}': its .*{token.replace('|', '.')}"
    ) as error:
        load_adapter(LAYOUTS[name].adapter, checkpoint)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["qwen2_audio", "whisper"])
def test_a_processor_that_pads_to_another_window_than_the_encoders_is_refused(name: str, checkpoint: Path) -> None:
    rewrite(checkpoint, chunk_length=30)
    with pytest.raises(RecipeError, match="its processor pads clips to 30 s, its encoder has positions for 4 s"):
        load_adapter(LAYOUTS[name].adapter, checkpoint)
