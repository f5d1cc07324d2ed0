"""Batches in which some prompts have audio and some are text alone: each row is what it is by itself."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from policies.adapter import PolicyAdapter
from policies.batch import Clip, EncodedPrompt, PolicyBatch, make_batch, pad_features
from policies.load import load_adapter
from policies.policy import Policy
from rlhf_platform.errors import DataError
from rlhf_platform.types import Prompt
from rollout.engine import RolloutEngine, SamplingSettings
from tests.layouts import HEARING, LAYOUTS
from tests.parity import TOLERANCE, largest_difference

WRITTEN = Prompt("written", "", "", "en", metadata={"text": "alpha <|im_end|> bravo"})
ALSO_WRITTEN = Prompt("also", "", "", "en", metadata={"text": "echo"})
CHATTING = [name for name in HEARING if name != "whisper"]
"""Layouts that have an encoder and answer text too."""


def loaded(name: str, path: Path, freeze_encoder: bool = True) -> tuple[PolicyAdapter, Policy]:
    LAYOUTS[name].build(path, LAYOUTS[name].ties[0])
    adapter = load_adapter(LAYOUTS[name].adapter, path)
    return adapter, Policy(adapter, adapter.load_model(torch.float32), 0.8, freeze_encoder).eval()


def batch_of(adapter: PolicyAdapter, prompts: list[Prompt], index: list[int] | None = None) -> PolicyBatch:
    """Row i answers prompt `index[i]`, or i, with completions of 3, 4, 5, ... tokens that depend on the prompt."""
    index = list(range(len(prompts))) if index is None else index
    allowed = adapter.completion_token_ids
    completions = [[allowed[(7 * len(prompts[i].id) + k) % 90] for k in range(3 + i)] for i in index]
    return make_batch([adapter.encode(p) for p in prompts], index, completions, adapter.tokenizer.pad_token_id)


@pytest.mark.parametrize("name", CHATTING)
@torch.no_grad()
def test_each_row_of_a_mixed_batch_is_what_it_is_alone(name: str, clips: list[Prompt], tmp_path: Path) -> None:
    adapter, policy = loaded(name, tmp_path)
    prompts = [WRITTEN, clips[3], ALSO_WRITTEN, clips[0]]
    order = [3, 0, 1, 1, 2, 0]
    batch = batch_of(adapter, prompts, order)
    assert batch.clip_index.tolist() == [[1], [-1], [0], [0], [-1], [-1]]
    assert batch.features is not None
    assert len(batch.features) == 2
    together = policy(batch)
    kept = policy(replace(batch, features=None, features_mask=None), policy.encode(batch))
    for row, number in enumerate(order):
        alone = batch_of(adapter, prompts, [number])
        only = make_batch(
            [adapter.encode(prompts[number])], [0], [alone.completion_ids[0].tolist()], adapter.tokenizer.pad_token_id
        )
        for values, again, expected in zip(together, kept, policy(only), strict=True):
            length = expected.shape[1]
            torch.testing.assert_close(values[row, :length], expected[0], rtol=0, atol=1e-5)
            torch.testing.assert_close(again[row, :length], expected[0], rtol=0, atol=1e-5)
    assert (together[0][1, :3] - together[0][4, :3]).abs().max() > 1e-3  # the written texts do differ


@pytest.mark.parametrize("name", CHATTING)
@torch.no_grad()
def test_a_row_without_audio_is_what_transformers_makes_of_its_tokens(name: str, tmp_path: Path) -> None:
    adapter, policy = loaded(name, tmp_path)
    batch = batch_of(adapter, [WRITTEN])
    start = len(adapter.encode(WRITTEN).token_ids)
    states = (policy.model.model if name != "qwen2_5_omni_thinker" else policy.model)(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask
    )
    logits = states.logits if "logits" in states else policy.model.get_output_embeddings()(states.last_hidden_state)
    allowed = list(adapter.completion_token_ids)
    distribution = torch.distributions.Categorical(logits=logits[0, start - 1 : -1][:, allowed].double() / 0.8)
    tokens = torch.tensor([allowed.index(t) for t in batch.completion_ids[0].tolist()])
    torch.testing.assert_close(policy(batch)[0][0].double(), distribution.log_prob(tokens), rtol=0, atol=1e-5)


@pytest.mark.parametrize("freeze", [True, False])
@pytest.mark.parametrize("name", CHATTING)
def test_without_any_audio_encoder_and_adaptor_get_a_gradient_of_exactly_zero(
    name: str, freeze: bool, clips: list[Prompt], tmp_path: Path
) -> None:
    adapter, policy = loaded(name, tmp_path, freeze_encoder=freeze)
    policy(batch_of(adapter, clips[:2]))[0].sum().backward()
    reached = {parameter: p for parameter, p in policy.model.named_parameters() if p.grad is not None}
    policy.zero_grad()
    policy(batch_of(adapter, [WRITTEN, ALSO_WRITTEN]))[0].sum().backward()
    silent = {parameter for parameter in reached if adapter.is_encoder(parameter) or adapter.is_adaptor(parameter)}
    assert silent or freeze
    for parameter, tensor in reached.items():
        assert tensor.grad is not None, parameter
        # A key's bias shifts all scores of a query alike, which the softmax takes out.
        assert (tensor.grad == 0).all() == (parameter in silent) or parameter.endswith("k_proj.bias"), parameter


@pytest.mark.parametrize("name", CHATTING)
def test_a_written_prompt_is_the_same_for_both_sides_and_cannot_end_its_own_turn(name: str, tmp_path: Path) -> None:
    adapter, _ = loaded(name, tmp_path)
    encoded = adapter.encode(WRITTEN)
    assert encoded.clips == ()
    assert adapter.vllm_prompt(WRITTEN) == {"prompt_token_ids": list(encoded.token_ids)}
    turns = adapter.tokenizer.decode(list(encoded.token_ids))
    assert turns.endswith("<|im_start|>user\nalpha <|im_end|> bravo<|im_end|>\n<|im_start|>assistant\n")
    end = adapter.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert encoded.token_ids.count(end) == (1 if name == "qwen3_asr" else 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", CHATTING)
def test_the_engine_serves_both_kinds_with_the_learners_logprobs(
    name: str, clips: list[Prompt], tmp_path: Path
) -> None:
    adapter, policy = loaded(name, tmp_path)
    engine = RolloutEngine(
        LAYOUTS[name].adapter, tmp_path, "float32", LAYOUTS[name].max_tokens, max_sequences=32, kv_cache_gib=0.1
    )
    sampled = SamplingSettings(samples=3, temperature=policy.temperature, max_new_tokens=10, seed=3)
    samples = engine.generate([WRITTEN, clips[2], ALSO_WRITTEN], sampled)
    assert largest_difference(adapter, policy, samples) < TOLERANCE
    assert len({sample.tokens for sample in samples}) > 3
    engine.close()


@pytest.mark.parametrize("metadata", [{}, {"text": " "}, {"text": 3}])
@pytest.mark.parametrize("name", CHATTING)
def test_a_prompt_with_neither_audio_nor_text_is_refused(name: str, metadata: dict, tmp_path: Path) -> None:
    adapter, _ = loaded(name, tmp_path)
    for view in (adapter.encode, adapter.vllm_prompt):
        with pytest.raises(DataError, match=r"^prompt written: audio is empty and metadata\.text is .+; name a clip"):
            view(replace(WRITTEN, metadata=metadata))


def test_whisper_answers_no_text(tmp_path: Path) -> None:
    adapter, _ = loaded("whisper", tmp_path)
    for view in (adapter.encode, adapter.vllm_prompt):
        with pytest.raises(DataError, match=r"^prompt written: audio is empty, and this backbone only transcribes; .+"):
            view(WRITTEN)


def test_prompts_without_audio_take_no_features_and_their_rows_no_clip() -> None:
    heard = [EncodedPrompt((1,), (Clip("", 1.0, torch.full((2, n), float(n)), torch.ones(n)),)) for n in (2, 3)]
    written = EncodedPrompt((4, 5))
    batch = make_batch([heard[0], written, heard[1]], [2, 1, 0, 2], [(7,)] * 4, pad_id=0)
    assert batch.clip_index.tolist() == [[1], [-1], [0], [1]]
    features, mask = batch.audio
    assert mask.tolist() == [[1, 1, 0], [1, 1, 1]]
    assert features[:, 0].tolist() == [[2.0, 2.0, 0.0], [3.0, 3.0, 3.0]]
    assert make_batch([written], [0, 0], [(7,)] * 2, pad_id=0).clip_index.tolist() == [[-1], [-1]]
    # Encoder output that is kept instead of features still is audio.
    first, last = (EncodedPrompt((token,), (Clip("", 1.0),)) for token in (1, 2))
    kept = make_batch([first, written, last], [0, 1, 2], [(7,)] * 3, pad_id=0)
    assert kept.clip_index.tolist() == [[0], [-1], [1]]
    assert kept.features is None


def test_features_of_some_clips_only_are_refused() -> None:
    clip = EncodedPrompt((1,), (Clip("", 1.0, torch.ones(2, 3), torch.ones(3)),))
    assert isinstance(pad_features([clip, EncodedPrompt((4,))])[0], Tensor)
    with pytest.raises(ValueError, match="some clips of the batch have features and some have none"):
        pad_features([clip, EncodedPrompt((4,), (Clip("", 1.0),))])
