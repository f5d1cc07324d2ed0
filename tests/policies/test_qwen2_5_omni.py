"""The thinker of Qwen2.5-Omni: its prompt, the talker of a published checkpoint, the vision tower nobody trains."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen2_5OmniConfig, Qwen2_5OmniForConditionalGeneration

from policies.load import load_adapter
from policies.qwen2_5_omni import Qwen25OmniThinkerAdapter
from rlhf_platform.errors import RecipeError
from rlhf_platform.types import Prompt
from tests.chat_layouts import build_qwen2_5_omni


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Qwen25OmniThinkerAdapter:
    path = tmp_path_factory.mktemp("qwen2_5_omni")
    build_qwen2_5_omni(path, tied=False)
    found = load_adapter("qwen2_5_omni_thinker", path)
    assert isinstance(found, Qwen25OmniThinkerAdapter)
    return found


def test_the_prompt_reads_as_the_layout_says(adapter: Qwen25OmniThinkerAdapter, clips: list[Prompt]) -> None:
    encoded = adapter.encode(clips[2])
    features = encoded.clips[0].features
    assert features is not None
    assert features.shape == (128, 130)
    expected = (
        "<|im_start|>system\nYou are a speech recognition model.<|im_end|>\n"
        f"<|im_start|>user\n<|audio_bos|>{'<|AUDIO|>' * 32}<|audio_eos|>Transcribe the audio into text.<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert adapter.tokenizer.decode(list(encoded.token_ids)) == expected


def test_the_vision_tower_is_not_trained_and_saved_as_it_was(adapter: Qwen25OmniThinkerAdapter, tmp_path: Path) -> None:
    model = adapter.load_model(torch.float32)
    assert not any("visual" in name for name, _ in model.named_parameters())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1.0
    adapter.save(model, tmp_path)
    before = load_file(Path(adapter.path) / "model.safetensors")
    after = load_file(tmp_path / "model.safetensors")
    assert after.keys() == before.keys()
    assert any(name.startswith("thinker.visual.") for name in before)
    for name in before:
        assert torch.equal(after[name], before[name]) == name.startswith("thinker.visual."), name


def test_a_published_checkpoint_is_read_without_its_talker(adapter: Qwen25OmniThinkerAdapter, tmp_path: Path) -> None:
    narrow = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 16}
    talker = narrow | {
        "vocab_size": 64,
        "embedding_size": 64,
        "intermediate_size": 32,
        "num_key_value_heads": 1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
        "tts_codec_start_token_id": 60,
        "tts_codec_end_token_id": 61,
        "tts_codec_pad_token_id": 62,
        "tts_codec_mask_token_id": 63,
    }
    dit = narrow | {
        "mel_dim": 8,
        "emb_dim": 16,
        "num_embeds": 65,
        "block_size": 4,
        "enc_dim": 8,
        "enc_emb_dim": 8,
        "enc_channels": [8, 8, 8, 8, 24],
        "enc_attention_channels": 4,
        "enc_res2net_scale": 2,
        "enc_se_channels": 4,
    }
    voice = {"dit_config": dit, "bigvgan_config": {"mel_dim": 8, "upsample_initial_channel": 32}}
    thinker = adapter.config.thinker_config.to_dict()
    whole = Qwen2_5OmniForConditionalGeneration(
        Qwen2_5OmniConfig(thinker_config=thinker, talker_config=talker, token2wav_config=voice)
    )
    whole.save_pretrained(tmp_path / "whole")
    stored = load_file(tmp_path / "whole" / "model.safetensors")
    assert {name.split(".")[0] for name in stored} == {"thinker", "talker", "token2wav"}
    for name in ("processor_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(adapter.path) / name, tmp_path / "whole" / name)

    reader = load_adapter("qwen2_5_omni_thinker", tmp_path / "whole")
    model = reader.load_model(torch.float32)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, stored[f"thinker.{name}"]), name
    reader.save(model, tmp_path / "saved")
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    assert set(saved) == {name for name in stored if name.startswith("thinker.")}


def test_libraries_that_would_tie_differently_are_refused(adapter: Qwen25OmniThinkerAdapter, tmp_path: Path) -> None:
    shutil.copytree(adapter.path, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    config["thinker_config"]["text_config"]["tie_word_embeddings"] = True
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(RecipeError, match=r"tie_word_embeddings is False in its thinker_config, .* and True in the"):
        load_adapter("qwen2_5_omni_thinker", tmp_path)
