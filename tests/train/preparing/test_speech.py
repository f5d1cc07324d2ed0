"""What a run that speaks needs before its actors start: texts, tokens and a backbone that knows its codec."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from policies.codec.load import load_codec
from policies.speaking import SpeechLayout
from rlhf_platform.data.audio import load_audio
from rlhf_platform.data.manifest import Row
from rlhf_platform.errors import DataError, RecipeError
from rlhf_platform.recipe.backbone import BackboneConfig
from rlhf_platform.recipe.schema import Recipe, RolloutConfig, SpeechConfig
from rlhf_platform.train.preparing.speech import check_texts, layout_of, speaking, with_codec
from rlhf_platform.types import Prompt
from tests.tiny import SPEC


def recipe_in(folder: Path, **speech: object) -> Recipe:
    recipe = Recipe(name="a", branch="tts", cache_dir=str(folder / "cache"))
    recipe.backbone = BackboneConfig(tiny=SPEC)
    recipe.rollout = RolloutConfig(max_new_tokens=100)
    recipe.speech = SpeechConfig(codebooks=1, longest=0.2, **speech)  # type: ignore[arg-type]
    return recipe


def clip(path: Path, seconds: float = 1.0, loud: float = 0.3) -> Path:
    time = np.arange(int(seconds * 16_000)) / 16_000
    sf.write(path, (loud * np.sin(2 * np.pi * 200 * time)).astype(np.float32), 16_000)
    return path


def test_what_cannot_be_spoken_is_told_row_by_row(tmp_path: Path) -> None:
    audio, silent = clip(tmp_path / "a.wav"), clip(tmp_path / "s.wav", loud=0.0)
    row = Row(tmp_path / "m.jsonl", 1, "a", audio, "red", "en", "me", 1.0, "rl", "CC0-1.0")
    rows = [
        row,
        replace(row, number=2, text=" "),
        replace(row, number=3, text="x" * 21),
        replace(row, number=4, audio=clip(tmp_path / "b.wav", 0.2), duration=0.2),
        replace(row, number=5, audio=silent),
    ]
    with pytest.raises(DataError) as refusal:
        check_texts(recipe_in(tmp_path), rows)
    said = str(refusal.value)
    assert "4 rows cannot be spoken" in said or "4 of" in said or "4 " in said.splitlines()[0]
    # 0.2 s a character at 25 frames of one token a second are 5 tokens a character: 100 hold 20.
    for words in ("text is empty", "21 characters", "allowed 20", "lasts 0.2 s", "is silent"):
        assert words in said
    check_texts(recipe_in(tmp_path), [row])


def test_recordings_become_the_codecs_tokens_once(tmp_path: Path) -> None:
    audio = clip(tmp_path / "a.wav")
    prompts = [Prompt("a", str(audio), "red", "en"), Prompt("b", str(audio), "red", "en", metadata={"codec": [1, 2]})]
    told: list[int] = []
    recipe = recipe_in(tmp_path)
    found = with_codec(recipe, prompts, told.append)
    expected = load_codec("world", codebooks=1).tokens_of(load_audio(str(audio)))
    assert [prompt.metadata["codec"] for prompt in found] == [expected, [1, 2]]
    assert told == [1]
    kept = list((tmp_path / "cache" / "codec").rglob("*.json"))
    assert len(kept) == 1
    kept[0].write_text("[7]")
    assert with_codec(recipe, prompts[:1], told.append)[0].metadata["codec"] == [7]


def test_a_recording_that_cannot_be_encoded_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"prompt a: .*short\.wav: .* shorter than a frame"):
        with_codec(recipe_in(tmp_path), [Prompt("a", str(clip(tmp_path / "short.wav", 0.01)), "red", "en")], print)


@pytest.fixture
def large(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A backbone with as many codec tokens as one codebook of the embedded codec has."""
    from policies.tiny import build_tiny

    build_tiny(replace(SPEC, audio_slots=512), ["red"], 4.0, tmp_path / "large")
    return tmp_path / "large"


def test_a_backbone_is_given_what_it_speaks_with_and_keeps_it(large: Path, tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path)
    first = speaking(recipe, large, ["red", "box"])
    layout = SpeechLayout.read(first)
    assert layout == layout_of(recipe, "bdeorx")
    assert SpeechLayout.read(large) is None
    assert speaking(recipe, first, []) == first
    more = SpeechLayout.read(speaking(recipe, first, ["zoo"]))
    assert more is not None
    assert more.characters == "bdeorxz"
    other = recipe_in(tmp_path, instructions="inline")
    changed = SpeechLayout.read(speaking(other, first, []))
    assert changed is not None
    assert (changed.instructions, changed.characters) == ("inline", "bdeorx")


def test_another_codec_than_it_has_learnt_is_refused(large: Path, tmp_path: Path) -> None:
    first = speaking(recipe_in(tmp_path), large, ["red"])
    other = recipe_in(tmp_path)
    other.speech = SpeechConfig(codebooks=2)
    with pytest.raises(RecipeError, match=r"has learnt to speak with world, 512; take that"):
        speaking(other, first, [])


def test_a_vocabulary_that_is_too_small_is_refused_and_leaves_nothing(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"512 entries, the vocabulary of .* has 16 codec tokens"):
        speaking(recipe_in(tmp_path), tiny_checkpoint, ["red"])
    whisper = recipe_in(tmp_path)
    whisper.backbone.adapter = "whisper"
    with pytest.raises(RecipeError, match="branch: tts takes one of qwen3_asr, codec_lm"):
        speaking(whisper, tiny_checkpoint, [])
    assert list((tmp_path / "cache" / "speaking").iterdir()) == []
