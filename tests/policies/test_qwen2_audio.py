"""The Qwen2-Audio adapter: the prompt of its template, a window that can be cut, a checkpoint both libraries read."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen2AudioForConditionalGeneration

from policies.chat import INSTRUCTION
from policies.load import load_adapter
from policies.qwen2_audio import Qwen2AudioAdapter
from rlhf_platform.types import Prompt
from tests.chat_layouts import PIECES, WINDOW, build_qwen2_audio


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Qwen2AudioAdapter:
    path = tmp_path_factory.mktemp("qwen2_audio")
    build_qwen2_audio(path, tied=False)
    found = load_adapter("qwen2_audio", path)
    assert isinstance(found, Qwen2AudioAdapter)
    return found


def test_the_prompt_is_that_of_the_chat_template(adapter: Qwen2AudioAdapter, clips: list[Prompt]) -> None:
    content = [{"type": "audio", "audio_url": "clip.wav"}, {"type": "text", "text": INSTRUCTION}]
    written = adapter.processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    assert adapter.tokenizer.decode(adapter.vllm_prompt(clips[0])["prompt_token_ids"]) == written


def test_there_is_a_placeholder_per_audio_position(adapter: Qwen2AudioAdapter, clips: list[Prompt]) -> None:
    placeholder = adapter.tokenizer.convert_tokens_to_ids("<|AUDIO|>")
    # 25 positions a second.
    for clip, positions in zip(clips, (10, 20, 32, 72), strict=True):
        encoded = adapter.encode(clip)
        assert encoded.token_ids.count(placeholder) == positions
        features = encoded.clips[0].features
        assert features is not None
        assert features.shape == (128, WINDOW * 100)


def test_a_completion_is_text_pieces_and_the_end_of_the_turn(adapter: Qwen2AudioAdapter) -> None:
    end = adapter.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert adapter.end_token_ids == (end,)
    assert adapter.completion_token_ids == (*range(PIECES), end)
    target = adapter.transcript_tokens("alpha <|AUDIO|> bravo")
    assert target[-1] == end
    assert set(target) <= set(adapter.completion_token_ids)
    assert adapter.completion_text(target) == "alpha <|AUDIO|> bravo"


@torch.no_grad()
def test_a_cut_window_hears_short_clips_as_before(
    adapter: Qwen2AudioAdapter, clips: list[Prompt], tmp_path: Path
) -> None:
    assert adapter.window() == WINDOW
    # Cutting is the last thing that is done with an adapter.
    Qwen2AudioAdapter(adapter.path).cut_window(2.0, tmp_path)
    cut = Qwen2AudioAdapter(tmp_path)
    assert cut.window() == 2.0
    before, after = adapter.load_model(torch.float32), cut.load_model(torch.float32)
    for clip in clips[:3]:
        assert cut.encode(clip).token_ids == adapter.encode(clip).token_ids
        (long,), (short,) = adapter.encode(clip).clips, cut.encode(clip).clips
        assert short.features is not None
        assert short.features.shape == (128, 200)
        (expected,) = adapter.audio_states(before, long.features[None], long.mask[None])
        (heard,) = cut.audio_states(after, short.features[None], short.mask[None])
        assert torch.allclose(heard, expected, atol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_a_checkpoint_has_the_published_names_and_loads_whole(tied: bool, tmp_path: Path) -> None:
    build_qwen2_audio(tmp_path, tied)
    stored = load_file(tmp_path / "model.safetensors")
    assert {name.split(".")[0] for name in stored} == {"audio_tower", "multi_modal_projector", "language_model"}
    assert {name.split(".")[1] for name in stored if name.startswith("language_model.")} == {"model", "lm_head"}
    model, report = Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(model.lm_head.weight, model.get_input_embeddings().weight) == tied
    ours = load_adapter("qwen2_audio", tmp_path).load_model(torch.float32)
    assert (ours.lm_head.weight is ours.get_input_embeddings().weight) == tied
