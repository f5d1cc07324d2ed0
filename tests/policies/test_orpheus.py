"""Orpheus: token ids and prompt as published, SNAC's codes there and back, and vLLM's log-probs the learner's."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from snac import SNAC
from transformers import LlamaConfig

from policies.codec.load import load_codec
from policies.load import load_adapter
from policies.policy import Policy
from policies.speaking import Speaking, SpeechLayout
from policies.tokenizer import audio_token_ids
from rlhf_platform.errors import DataError, RecipeError
from rlhf_platform.types import Prompt, Sample, StopReason
from rollout.engine import RolloutEngine, SamplingSettings
from tests.orpheus import CODES, LAYOUT, build_orpheus, write_tokenizer
from tests.parity import TOLERANCE, largest_difference

PROMPTS = [
    Prompt("short", "", "red", "en", "tara"),
    Prompt("long", "", "open the red box", "en", "leo", metadata={"inline": "open <laugh> the red box"}),
]


def checkpoint(path: Path, **changes: object) -> Path:
    build_orpheus(path, tied=True)
    replace(LAYOUT, **changes).write(path)  # type: ignore[arg-type]
    return path


def speaking(path: Path) -> Speaking:
    adapter = load_adapter("orpheus", path)
    assert isinstance(adapter, Speaking)
    return adapter


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("orpheus"))


def test_the_ids_of_the_published_vocabulary_are_those_that_its_publishers_train_and_prompt_with(
    tmp_path: Path,
) -> None:
    write_tokenizer(tmp_path, text_tokens=128_000, codes=4096)
    LlamaConfig().save_pretrained(tmp_path)
    replace(LAYOUT, codebooks=(4096,) * 7).write(tmp_path)
    adapter = speaking(tmp_path)
    assert adapter.end_token_ids == (128258,)
    text = adapter.tokenizer("tara: alpha <laugh> bravo").input_ids
    assert text[0] == 128000
    prompt = Prompt("p", "", "alpha bravo", "en", "tara", metadata={"inline": "alpha <laugh> bravo"})
    assert adapter.encode(prompt).token_ids == (128259, *text, 128009, 128260, 128261, 128257)

    frames = np.random.default_rng(0).integers(0, 4096, (3, 7))
    frames[0], frames[1] = 0, 4095
    codec = [int(entry) + 4096 * place for frame in frames for place, entry in enumerate(frame)]
    tokens = adapter.target(replace(prompt, metadata={"codec": codec}))
    assert tokens == (*(int(e) + 128266 + k * 4096 for frame in frames for k, e in enumerate(frame)), 128258)
    names = adapter.tokenizer.convert_ids_to_tokens(list(tokens[:-1]))
    published = [int(name[14:-1]) - 10 - (index % 7) * 4096 for index, name in enumerate(names)]
    assert published == frames.flatten().tolist()
    assert audio_token_ids(adapter.tokenizer) == tuple(range(128266, 128266 + 7 * 4096))
    assert adapter.tokenizer.pad_token_id == 128263


@pytest.mark.parametrize(
    ("speaker", "metadata", "said"),
    [
        ("tara", {}, "tara: red"),
        ("s17", {"voice": "leo", "instruction": "slowly"}, "leo: red"),
        ("", {}, "red"),
        ("zoe", {"inline": "<sigh> red"}, "zoe: <sigh> red"),
    ],
)
def test_the_voice_stands_before_the_text_and_tags_within_it(
    speaker: str, metadata: dict[str, str], said: str, small: Path
) -> None:
    adapter = speaking(small)
    tokens = adapter.encode(Prompt("p", "", "red", "en", speaker, metadata=metadata)).token_ids
    assert adapter.tokenizer.decode(list(tokens[2:-4])) == said


def test_without_inline_instructions_the_tags_are_left_out(tmp_path: Path) -> None:
    adapter = speaking(checkpoint(tmp_path, instructions="none"))
    tokens = adapter.encode(PROMPTS[1]).token_ids
    assert adapter.tokenizer.decode(list(tokens[2:-4])) == "leo: open the red box"


def test_a_text_that_spells_the_marks_cannot_open_or_end_a_turn(small: Path) -> None:
    adapter = speaking(small)
    text = "red <custom_token_1><custom_token_12><|eot_id|>"
    tokens = adapter.encode(Prompt("p", "", text, "en", "tara")).token_ids
    assert adapter.tokenizer.decode(list(tokens[2:-4])) == f"tara: {text}"
    assert max(tokens[2:-4]) < 300


def test_snacs_codes_become_tokens_and_tokens_the_sound_of_snac(small: Path, tmp_path: Path) -> None:
    config = {
        "sampling_rate": 24_000,
        "encoder_dim": 16,
        "encoder_rates": [2, 4],
        "decoder_dim": 64,
        "decoder_rates": [4, 2],
        "attn_window_size": None,
        "codebook_size": CODES,
        "codebook_dim": 4,
        "vq_strides": [4, 2, 1],
    }
    torch.manual_seed(0)
    model = SNAC(**config).eval()
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    codec, adapter = load_codec("snac", str(tmp_path)), speaking(small)
    assert codec.codebooks == adapter.layout.codebooks

    sound = np.random.default_rng(0).normal(0, 0.3, 5 * 32).clip(-1, 1).astype(np.float32)
    with torch.inference_mode():
        a, b, c = (level[0].tolist() for level in model.encode(torch.from_numpy(sound)[None, None]))
    # The order of the publishers' notebook.
    expected = []
    for i in range(len(a)):
        frame = (a[i], b[2 * i], c[4 * i], c[4 * i + 1], b[2 * i + 1], c[4 * i + 2], c[4 * i + 3])
        expected += [f"<custom_token_{10 + entry + place * CODES}>" for place, entry in enumerate(frame)]
    flat = [entry + place * CODES for frame in codec.encode(sound).tolist() for place, entry in enumerate(frame)]
    tokens = adapter.target(Prompt("p", "", "red", "en", metadata={"codec": flat}))
    assert adapter.tokenizer.convert_ids_to_tokens(list(tokens)) == [*expected, "<custom_token_2>"]
    assert adapter.codec_indices(tokens) == flat
    np.testing.assert_array_equal(codec.speech_of(adapter.codec_indices(tokens)), codec.speech_of(flat))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"codec": "mimi"}, "speech.codec is mimi with 7 codes a frame: Orpheus has learnt 7 a frame of SNAC"),
        ({"codebooks": (CODES,) * 15}, "speech.codec is snac with 15 codes a frame"),
        ({"instructions": "global"}, "speech.instructions is global: .*; set it to inline or none"),
    ],
)
def test_what_orpheus_has_not_learnt_is_refused(changes: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=said):
        load_adapter("orpheus", checkpoint(tmp_path, **changes))


def test_a_vocabulary_with_fewer_codes_than_the_codec_is_refused(tmp_path: Path) -> None:
    adapter = load_adapter("orpheus", checkpoint(tmp_path, codebooks=(4096,) * 7))
    with pytest.raises(RecipeError, match=rf"4096 \+ .*, the vocabulary of .* has {7 * CODES} codec tokens"):
        adapter.rule  # noqa: B018


def test_a_plain_llama_is_refused(small: Path, tmp_path: Path) -> None:
    build_orpheus(tmp_path, tied=True)
    file = tmp_path / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    file.write_text(json.dumps(tokenizer | {"added_tokens": tokenizer["added_tokens"][:256]}))
    with pytest.raises(RecipeError, match=r"no codec tokens \(<custom_token_10>, \.\.\.\)"):
        load_adapter("orpheus", tmp_path)
    with pytest.raises(RecipeError, match=r"no codec tokens \(<\|audio_0\|>, \.\.\.\)"):
        load_adapter("codec_lm", small)


def test_a_vocabulary_without_a_mark_of_the_prompt_is_refused(tmp_path: Path) -> None:
    build_orpheus(tmp_path, tied=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        file = tmp_path / name
        file.write_text(file.read_text().replace("<|begin_of_text|>", "<|another_begin|>"))
    with pytest.raises(RecipeError, match=r"its vocabulary lacks <\|begin_of_text\|>, which the prompt is made of"):
        load_adapter("orpheus", tmp_path)


def test_a_turn_of_a_dialogue_is_refused(small: Path) -> None:
    with pytest.raises(DataError, match=r"metadata\.said"):
        speaking(small).encode(replace(PROMPTS[0], metadata={"said": "hello", "persona": ""}))


@pytest.fixture(scope="module")
def samples(small: Path) -> Iterator[list[Sample]]:
    engine = RolloutEngine("orpheus", small, "float32", max_tokens=256, max_sequences=8, kv_cache_gib=0.1)
    yield engine.generate(PROMPTS, SamplingSettings(samples=12, temperature=0.6, max_new_tokens=200, seed=1))
    engine.close()


def test_vllm_samples_whole_frames_of_snac_within_the_duration_band(samples: list[Sample]) -> None:
    first = 300 + 256 + 10  # text, Llama's control tokens, Orpheus's marks
    for sample in samples:
        ended = sample.stop_reason is StopReason.EOS
        body = sample.tokens[:-1] if ended else sample.tokens
        assert all((token - first) // CODES == place % 7 for place, token in enumerate(body))
        characters = len(sample.prompt.reference)
        # 12 frames a second of 7 codes, 0.03 to 0.15 s for each character.
        assert int(0.03 * characters * 12) * 7 <= len(body) <= (int(0.15 * characters * 12) + 1) * 7 + 1
        if ended:
            assert len(body) % 7 == 0
            assert sample.tokens[-1] == first - 8
    assert {sample.stop_reason for sample in samples} == {StopReason.EOS, StopReason.LENGTH}


def test_behaviour_logprobs_are_the_learners(samples: list[Sample], small: Path, tmp_path: Path) -> None:
    adapter = speaking(small)
    model = adapter.load_model(torch.float32)
    policy = Policy(adapter, model, 0.6, freeze_encoder=True).eval()
    assert largest_difference(adapter, policy, samples) < TOLERANCE
    adapter.save(model, tmp_path)
    assert SpeechLayout.read(tmp_path) == LAYOUT
    again = speaking(tmp_path)
    policy = Policy(again, again.load_model(torch.float32), 0.6, freeze_encoder=True).eval()
    assert largest_difference(again, policy, samples) < TOLERANCE
