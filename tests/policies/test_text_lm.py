"""Text models that chat: what they are asked, what they may write, what is refused, and that vLLM and learner agree."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from policies.load import load_adapter
from policies.lora import add_lora, lora_weights
from policies.policy import Policy
from policies.text_lm import TextLMAdapter
from policies.weights import WeightUpdate, checksum
from rlhf_platform.errors import DataError, RecipeError
from rlhf_platform.recipe.schema import LoraConfig
from rlhf_platform.types import Prompt
from rollout.engine import RolloutEngine, SamplingSettings
from tests.layouts import build_codec_lm
from tests.parity import TOLERANCE, largest_difference

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MESSAGES = [{"role": "system", "content": "bravo"}, {"role": "user", "content": "alpha or delta"}]
PROMPT = Prompt("p1", "", "delta. Verdict: B", "en", metadata={"messages": MESSAGES})


def write_checkpoint(path: Path, template: str | None = CHATML) -> None:
    build_codec_lm(path, True)
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(path)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text_lm")
    write_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def adapter(checkpoint: Path) -> TextLMAdapter:
    found = load_adapter("text_lm", checkpoint)
    assert isinstance(found, TextLMAdapter)
    return found


def asked(*messages: Any) -> Prompt:
    return replace(PROMPT, metadata={"messages": list(messages)})


def test_a_prompt_is_its_messages_in_the_chat_template_and_an_opened_answer(adapter: TextLMAdapter) -> None:
    encoded = adapter.encode(PROMPT)
    assert adapter.tokenizer.decode(list(encoded.token_ids)) == (
        "<|im_start|>system\nbravo<|im_end|>\n<|im_start|>user\nalpha or delta<|im_end|>\n<|im_start|>assistant\n"
    )
    # As the tokenizer itself makes token ids of a chat, which is what a chat endpoint does.
    own = adapter.tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=False)
    assert list(encoded.token_ids) == own
    assert adapter.vllm_prompt(PROMPT) == {"prompt_token_ids": own}
    assert encoded.clips == ()


def test_the_target_is_the_reference_and_the_token_that_ends_a_turn(adapter: TextLMAdapter) -> None:
    target = adapter.target(PROMPT)
    assert target[-1] == adapter.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert adapter.tokenizer.decode(list(target[:-1])) == PROMPT.reference
    assert adapter.completion_text(target) == PROMPT.reference
    together = adapter.tokenizer.apply_chat_template(
        [*MESSAGES, {"role": "assistant", "content": PROMPT.reference}], return_dict=False
    )
    assert [*adapter.encode(PROMPT).token_ids, *target] == together[: -len(adapter.pieces("\n"))]


def test_a_completion_is_pieces_and_an_end_but_no_control_or_codec_token(adapter: TextLMAdapter) -> None:
    names = adapter.tokenizer.convert_ids_to_tokens(list(adapter.completion_token_ids))
    assert len(names) == 301
    assert [name for name in names if name.startswith("<|")] == ["<|im_end|>"]
    assert adapter.end_token_ids == (adapter.tokenizer.convert_tokens_to_ids("<|im_end|>"),)


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([], "metadata has no list named messages"),
        (["alpha"], "message 1 is no object of role and content"),
        ([{"role": "user"}], "message 1 is of role 'user' with content None"),
        ([*MESSAGES, {"role": "judge", "content": "alpha"}], "message 3 is of role 'judge'"),
        (
            [{"role": "user", "content": "a <|im_end|> b"}],
            "message 1 holds '<|im_end|>', which would end or open a turn",
        ),
    ],
)
def test_messages_that_cannot_be_asked_are_refused(adapter: TextLMAdapter, messages: list[Any], why: str) -> None:
    with pytest.raises(DataError) as raised:
        adapter.encode(asked(*messages))
    assert str(raised.value).startswith(f"prompt p1: {why}")


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (None, "its tokenizer has no chat template"),
        ("{% for message in messages %}{{ message.content }}\n{% endfor %}", "its chat template ends no answer with"),
    ],
)
def test_a_checkpoint_that_does_not_chat_is_refused(template: str | None, why: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, template)
    with pytest.raises(RecipeError) as raised:
        load_adapter("text_lm", tmp_path)
    assert str(raised.value).startswith(f"backbone.path is '{tmp_path}': {why}")


def test_vllm_and_the_learner_agree_from_disk_and_after_a_sync_of_lora(adapter: TextLMAdapter) -> None:
    prompts = [
        replace(PROMPT, id=str(number), metadata={"messages": MESSAGES[: 1 + number % 2] * (1 + number // 2)})
        for number in range(4)
    ]
    policy = Policy(adapter, adapter.load_model(torch.float32), 0.7, freeze_encoder=True).eval()
    engine = RolloutEngine("text_lm", adapter.path, "float32", 128, 16, 0.1, lora_rank=8)
    settings = SamplingSettings(samples=4, temperature=0.7, max_new_tokens=10, seed=3)
    before = engine.generate(prompts, settings)
    assert len({sample.tokens for sample in before}) > len(prompts)
    assert {token for sample in before for token in sample.tokens} <= set(adapter.completion_token_ids)
    assert largest_difference(adapter, policy, before) < TOLERANCE

    add_lora(adapter, policy.model, LoraConfig(rank=8, alpha=16), "learner.lora", seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    assert largest_difference(adapter, policy, before) > 1e-2
    tensors = {name: weight.clone() for name, weight in lora_weights(adapter, policy.model)}
    engine.load_weights(WeightUpdate(1, tensors, checksum(tensors), lora_rank=8))
    assert largest_difference(adapter, policy, engine.generate(prompts, settings)) < TOLERANCE
    engine.close()
