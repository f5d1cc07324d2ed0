"""A backbone that speaks: its prompt, its targets, and what it refuses."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from policies.batch import make_batch
from policies.load import load_adapter
from policies.policy import Policy
from policies.speaking import Speaking, SpeechLayout
from rlhf_platform.errors import DataError, RecipeError
from rlhf_platform.types import Prompt
from tests.speaking import LAYOUT, PROMPTS, write_speaking_checkpoint


@pytest.fixture(scope="module")
def adapter(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Speaking:
    path = tmp_path_factory.mktemp("speaking") / "checkpoint"
    write_speaking_checkpoint(tiny_checkpoint, path, characters=" bcdegnopruhxtm")
    found = load_adapter("qwen3_asr", path)
    assert isinstance(found, Speaking)
    return found


def test_the_prompt_is_instruction_and_text_and_opens_the_speech(adapter: Speaking) -> None:
    said = adapter.tokenizer.decode(list(adapter.encode(PROMPTS[0]).token_ids))
    assert said == "<|im_start|>user\nslowly\nred<|im_end|>\n<|im_start|>assistant\n<|audio_start|>"


@pytest.mark.parametrize(
    ("kind", "expected"), [("none", "\nred"), ("global", "slowly\nred"), ("inline", "slowly\n<pause> red")]
)
def test_the_layout_says_what_the_prompt_has(tiny_checkpoint: Path, tmp_path: Path, kind: str, expected: str) -> None:
    write_speaking_checkpoint(tiny_checkpoint, tmp_path / "c", instructions=kind)
    adapter = load_adapter("qwen3_asr", tmp_path / "c")
    assert isinstance(adapter, Speaking)
    prompt = replace(PROMPTS[0], metadata={"instruction": "slowly", "inline": "<pause> red"})
    assert adapter.spoken_text(prompt) == expected


def test_a_target_is_the_codec_tokens_by_codebook_and_an_end(adapter: Speaking) -> None:
    prompt = replace(PROMPTS[0], metadata={"codec": [7, 8, 12, 0, 11, 15]})
    tokens = adapter.target(prompt)
    names = adapter.tokenizer.convert_ids_to_tokens(list(tokens))
    assert names == [*(f"<|audio_{index}|>" for index in (7, 8, 12, 0, 11, 15)), "<|im_end|>"]
    assert adapter.codec_indices(tokens) == [7, 8, 12, 0, 11, 15]


@pytest.mark.parametrize(
    ("codec", "said"),
    [
        (None, "no list of codec indices"),
        ([], "no list of codec indices"),
        ([7, 8], "ends within a frame of 3 indices"),
        ([8, 8, 12], "holds 8 at place 0: allowed 0 to 7, codebook 0 of world"),
        ([7, 8, 16], "holds 16 at place 2: allowed 12 to 15"),
        ([7, True, 12], "holds True at place 1"),
    ],
)
def test_a_target_that_is_none_of_the_codec_is_refused(adapter: Speaking, codec: object, said: str) -> None:
    with pytest.raises(DataError, match=said):
        adapter.target(replace(PROMPTS[0], metadata={"codec": codec}))


def test_text_that_cannot_be_spoken_is_refused(adapter: Speaking) -> None:
    with pytest.raises(DataError, match="'z', which occurs in no text"):
        adapter.encode(replace(PROMPTS[0], reference="zebra"))
    with pytest.raises(DataError, match="text is empty"):
        adapter.encode(replace(PROMPTS[0], reference=" "))


def test_a_vocabulary_without_enough_codec_tokens_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    write_speaking_checkpoint(tiny_checkpoint, tmp_path / "c", codebooks=(8, 8, 4))
    with pytest.raises(RecipeError, match=r"8 \+ 8 \+ 4 entries, the vocabulary of .* has 16 codec tokens"):
        load_adapter("qwen3_asr", tmp_path / "c").rule  # noqa: B018


def test_a_saved_checkpoint_says_what_it_speaks_with(adapter: Speaking, tmp_path: Path) -> None:
    adapter.save(adapter.load_model(torch.float32), tmp_path)
    assert SpeechLayout.read(tmp_path) == replace(LAYOUT, characters=" bcdegnopruhxtm")


def test_logprobs_are_those_of_a_float64_softmax_over_what_may_stand(adapter: Speaking) -> None:
    policy = Policy(adapter, adapter.load_model(torch.float32), 0.7, freeze_encoder=True).eval()
    prompt, answer = PROMPTS[1], adapter.target(replace(PROMPTS[1], metadata={"codec": [3, 9, 13, 5, 10, 14] * 5}))
    encoded = adapter.encode(prompt)
    batch = make_batch([encoded], [0], [answer], 0)
    with torch.no_grad():
        found = policy(batch)[0][0]
        logits = policy.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[0].double()
    codebooks, least = adapter.rule.codebooks, adapter.band(prompt).least
    assert 0 < least < len(answer)
    for step, token in enumerate(answer):
        may = list(codebooks[step % 3]) + (list(adapter.end_token_ids) if step % 3 == 0 and step >= least else [])
        row = logits[len(encoded.token_ids) - 1 + step, may] / 0.7
        expected = row[may.index(token)] - row.logsumexp(0)
        assert float(found[step]) == pytest.approx(float(expected), abs=1e-5)
    assert [p for p in policy.model.named_parameters() if p[1].requires_grad and "audio_tower" in p[0]] == []


def test_prompts_of_other_languages_and_without_audio_are_fine(adapter: Speaking) -> None:
    assert adapter.encode(Prompt("p", "", "red", "xx")).clips == ()
