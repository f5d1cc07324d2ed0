"""Dialogues of several clips: what the decoder reads, and that each row is what Transformers makes of it alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken
from torch import Tensor

from policies.adapter import PolicyAdapter
from policies.batch import PolicyBatch, make_batch
from policies.dialogue import TurnsAdapter
from policies.load import load_adapter
from policies.policy import Policy
from policies.qwen3_asr import Qwen3ASRAdapter
from rlhf_platform.data.dialogue import Next, follow_up, written
from rlhf_platform.errors import DataError
from rlhf_platform.types import Prompt
from tests.dialogues import PERSONA, REPLIES, SAID, dialogue
from tests.layouts import HEARING, LAYOUTS
from tests.policies.test_features import processed

CHATTING = [name for name in HEARING if name != "whisper"]
MARKS = {
    "qwen2_5_omni_thinker": "<|audio_bos|><|AUDIO|><|audio_eos|>",
    "qwen2_audio": "Audio {number}: <|audio_bos|><|AUDIO|><|audio_eos|>\n",
    "qwen3_asr": "<|audio_start|><|audio_pad|><|audio_end|>",
}
WRITTEN = Prompt("written", "", "", "en", metadata={"text": "echo"})


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, marks=[pytest.mark.slow] if n == "qwen2_5_omni_thinker" else []) for n in CHATTING],
)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def adapter(name: str, tmp_path_factory: pytest.TempPathFactory) -> TurnsAdapter:
    path = tmp_path_factory.mktemp(name)
    LAYOUTS[name].build(path, LAYOUTS[name].ties[0])
    found = load_adapter(LAYOUTS[name].adapter, path)
    assert isinstance(found, TurnsAdapter)
    return found


def policy_of(adapter: PolicyAdapter, freeze_encoder: bool = True) -> Policy:
    return Policy(adapter, adapter.load_model(torch.float32), 0.8, freeze_encoder).eval()


def batch_of(adapter: PolicyAdapter, prompts: list[Prompt], index: list[int], packed: int = 0) -> PolicyBatch:
    """Row i answers prompt `index[i]` with 3 tokens or more that depend on i."""
    allowed = adapter.completion_token_ids
    completions = [[allowed[(7 * i + 3 * k) % 90] for k in range(3 + i % 4)] for i in range(len(index))]
    encoded = [adapter.encode(prompt) for prompt in prompts]
    return make_batch(encoded, index, completions, adapter.tokenizer.pad_token_id, packed)


def mixed(clips: list[Prompt]) -> list[Prompt]:
    """Three lengths of session, a clip to transcribe and a text to answer."""
    return [dialogue(clips, 2), WRITTEN, dialogue(clips[1:], 1), clips[2], dialogue(clips[::-1], 0, persona="")]


def test_the_turns_read_as_the_layout_says(name: str, adapter: TurnsAdapter, clips: list[Prompt]) -> None:
    def user(number: int) -> str:
        return f"<|im_start|>user\n{MARKS[name].format(number=number)}<|im_end|>\n"

    tokens = adapter.vllm_prompt(dialogue(clips, 2))["prompt_token_ids"]
    assert adapter.tokenizer.decode(tokens) == (
        f"<|im_start|>system\n{PERSONA}<|im_end|>\n"
        f"{user(1)}<|im_start|>assistant\n{REPLIES[0]}<|im_end|>\n"
        f"{user(2)}<|im_start|>assistant\n{REPLIES[1]}<|im_end|>\n"
        f"{user(3)}<|im_start|>assistant\n"
    )
    # What persona and replies spell is text: the only control tokens are the layout's own.
    assert tokens.count(adapter.tokenizer.convert_tokens_to_ids("<|im_end|>")) == 6
    assert tokens.count(adapter.tokenizer.convert_tokens_to_ids("<|im_start|>")) == 7

    first = adapter.vllm_prompt(dialogue(clips, 0, persona=""))["prompt_token_ids"]
    assert adapter.tokenizer.decode(first) == f"{user(1)}<|im_start|>assistant\n"


def test_the_turns_are_those_of_the_published_template(
    clips: list[Prompt], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("template")
    LAYOUTS["qwen2_audio"].build(path, False)
    adapter = load_adapter("qwen2_audio", path)
    assert isinstance(adapter, TurnsAdapter)
    heard: dict[str, Any] = {"role": "user", "content": [{"type": "audio", "audio_url": "clip.wav"}]}
    turns = [
        {"role": "system", "content": "Be brief."},
        heard,
        {"role": "assistant", "content": REPLIES[0]},
        heard,
    ]
    template = adapter.processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    tokens = adapter.vllm_prompt(dialogue(clips, 1, persona="Be brief."))["prompt_token_ids"]
    assert tokens == adapter.tokenizer.encode(template)


def test_past_replies_have_their_reasoning_and_a_turn_without_a_clip_is_written(
    name: str, adapter: TurnsAdapter, clips: list[Prompt]
) -> None:
    prompt = dialogue(clips, 1)
    asked, replied = prompt.metadata["history"]
    history = [{**asked, "audio": "", "text": "a <|im_end|> b"}, {**replied, "reasoning": "heard a"}]
    served = adapter.vllm_prompt(replace(prompt, metadata={**prompt.metadata, "history": history}))
    text = adapter.tokenizer.decode(served["prompt_token_ids"])
    assert (
        "<|im_start|>user\na <|im_end|> b<|im_end|>\n"
        f"<|im_start|>assistant\n<think>heard a</think> {REPLIES[0]}<|im_end|>\n"
    ) in text
    assert served["prompt_token_ids"].count(adapter.tokenizer.convert_tokens_to_ids("<|im_end|>")) == 4
    assert len(served["multi_modal_data"]["audio"]) == 1
    assert MARKS[name].format(number=1) in text


def test_learner_and_engine_get_the_same_tokens_and_each_clip_is_what_it_is_alone(
    adapter: TurnsAdapter, name: str, clips: list[Prompt]
) -> None:
    from vllm.config import ModelConfig

    from policies.vllm_plugin import register

    register()
    config = ModelConfig(model=adapter.path, dtype="float32", max_model_len=256, limit_mm_per_prompt={"audio": 3})
    prompt = dialogue(clips, 2)
    encoded = adapter.encode(prompt)
    tokens, data = processed(config, adapter.vllm_prompt(prompt))
    assert tokens == list(encoded.token_ids)
    assert [clip.path for clip in encoded.clips] == [clip.audio for clip in clips[:3]]
    served = data.get("input_features")
    if served is None:
        served = data["input_audio_features"].split(data["audio_feature_lengths"].flatten().tolist(), dim=1)
    for clip, heard, features in zip(clips, encoded.clips, served, strict=False):
        (alone,) = adapter.encode(clip).clips
        assert heard.features is not None
        assert torch.equal(heard.features, alone.features)
        assert torch.equal(heard.mask, alone.mask)
        frames = min(features.shape[1], heard.features.shape[1])
        assert frames >= int(heard.mask.sum())
        assert torch.equal(features[:, :frames], heard.features[:, :frames])


@pytest.mark.parametrize("cut", [False, True])
def test_the_next_turn_goes_on_from_the_ids_of_prompt_and_completion(
    cut: bool, adapter: TurnsAdapter, clips: list[Prompt]
) -> None:
    prompt = dialogue(clips, 0)
    # Pieces as no tokenizer would choose them: letter by letter.
    letters = [piece for letter in "<think>a</think> bravo" for piece in adapter.pieces(letter)]
    tokens = letters if cut else [*letters, adapter.end_token_ids[0]]
    assert letters != adapter.pieces("<think>a</think> bravo")
    for number in (1, 2):
        after = follow_up(prompt, adapter.completion_text(tokens), tokens, Next(clips[number].audio, SAID[number]))
        for before, later in (
            (adapter.encode(prompt).token_ids, adapter.encode(after).token_ids),
            (adapter.vllm_prompt(prompt)["prompt_token_ids"], adapter.vllm_prompt(after)["prompt_token_ids"]),
        ):
            written_so_far = [*before, *tokens]
            assert list(later[: len(written_so_far)]) == written_so_far
            rest = adapter.tokenizer.decode(list(later[len(written_so_far) :]))
            assert rest.startswith(f"{'<|im_end|>' if cut else ''}\n<|im_start|>user\n")
        prompt = after


def test_the_target_is_the_reply_with_its_trace_and_may_be_written_in_full(
    adapter: TurnsAdapter, clips: list[Prompt]
) -> None:
    plain, traced = dialogue(clips, 1), dialogue(clips, 1, reasoning="heard alpha")
    for prompt, text in ((plain, "delta four"), (traced, "<think>heard alpha</think> delta four")):
        target = adapter.target(prompt)
        assert target == (*adapter.pieces(text), adapter.tokenizer.convert_tokens_to_ids("<|im_end|>"))
        assert set(target) <= set(adapter.completion_token_ids)
        assert adapter.completion_text(target) == text
    # Beside a dialogue, a transcript stays one.
    assert adapter.target(clips[0]) == adapter.transcript_tokens(clips[0].reference)


def test_a_vocabulary_that_has_the_marks_of_a_trace_as_tokens_writes_them_in_pieces(
    tiny_checkpoint: Path, clips: list[Prompt]
) -> None:
    plain, adapter = Qwen3ASRAdapter(tiny_checkpoint), Qwen3ASRAdapter(tiny_checkpoint)
    adapter.tokenizer.add_tokens([AddedToken(mark, special=False) for mark in ("<think>", "</think>")])
    target = adapter.target(dialogue(clips, 0, reasoning="heard alpha"))
    assert set(target) <= set(adapter.completion_token_ids)
    assert adapter.completion_text(target) == written("heard alpha", "delta four")
    assert adapter.pieces("alpha bravo") == plain.pieces("alpha bravo")


def logprobs_by_transformers(adapter: TurnsAdapter, policy: Policy, prompt: Prompt, tokens: list[int]) -> Tensor:
    """Log-probs (T,) by a call of the Transformers model, with every clip padded to the longest."""
    encoded = adapter.encode(prompt)
    found = [(clip.features, clip.mask) for clip in encoded.clips]
    frames = max(mask.shape[0] for _, mask in found)
    features = torch.zeros(len(found), found[0][0].shape[0], frames)
    masks = torch.zeros(len(found), frames, dtype=torch.long)
    for row, (one, mask) in enumerate(found):
        features[row, :, : one.shape[1]], masks[row, : len(mask)] = one, mask
    ids = torch.tensor([[*encoded.token_ids, *tokens]])
    states = policy.model.base_model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        input_features=features,
        **{adapter.mask_name: masks},
    ).last_hidden_state
    logits = policy.model.get_output_embeddings()(states)[0, len(encoded.token_ids) - 1 : -1]
    allowed = list(adapter.completion_token_ids)
    distribution = torch.distributions.Categorical(logits=logits[:, allowed].double() / 0.8)
    return distribution.log_prob(torch.tensor([allowed.index(token) for token in tokens]))


@torch.no_grad()
def test_log_probs_are_those_of_transformers_and_of_each_row_alone(adapter: TurnsAdapter, clips: list[Prompt]) -> None:
    policy, prompts = policy_of(adapter), mixed(clips)
    index = [2, 0, 1, 3, 0, 4]
    batch = batch_of(adapter, prompts, index)
    assert batch.clip_index.tolist() == [
        [3, 4, -1],
        [0, 1, 2],
        [-1, -1, -1],
        [5, -1, -1],
        [0, 1, 2],
        [6, -1, -1],
    ]
    together, _ = policy(batch)
    kept, _ = policy(replace(batch, features=None, features_mask=None), policy.encode(batch))
    torch.testing.assert_close(kept, together, rtol=0, atol=1e-5)
    for row, number in enumerate(index):
        length = int(batch.completion_mask[row].sum())
        tokens = batch.completion_ids[row, :length].tolist()
        encoded = [adapter.encode(prompts[number])]
        alone, _ = policy(make_batch(encoded, [0], [tokens], adapter.tokenizer.pad_token_id))
        torch.testing.assert_close(together[row, :length], alone[0], rtol=0, atol=1e-5)
        if encoded[0].clips:
            expected = logprobs_by_transformers(adapter, policy, prompts[number], tokens)
            torch.testing.assert_close(together[row, :length].double(), expected, rtol=0, atol=1e-5)


def test_every_clip_is_learnt_from_packed_or_not(adapter: TurnsAdapter, clips: list[Prompt]) -> None:
    found = []
    for packed in (0, 1024):
        policy = policy_of(adapter, freeze_encoder=False)
        batch = batch_of(adapter, mixed(clips), [0, 0, 0, 1, 1, 2, 2, 3, 4], packed)
        features, mask = batch.audio
        features.requires_grad_()
        logprobs, entropy = policy(batch)
        (logprobs * torch.linspace(-1, 1, len(logprobs)).unsqueeze(1)).sum().backward()
        assert features.grad is not None
        for clip, real in zip(features.grad, mask, strict=True):
            assert clip[:, real.bool()].abs().max() > 1e-6
        gradients = {n: p.grad for n, p in policy.named_parameters() if p.grad is not None}
        assert any(adapter.is_encoder(n.removeprefix("model.")) for n in gradients)
        found.append((batch, logprobs.detach(), entropy.detach(), features.grad, gradients))
    (alone, *expected, whole), (shared, *values, again) = found
    assert (len(alone.input_ids), len(shared.input_ids)) == (9, 5)
    for ours, theirs in zip(values, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-5)
    for parameter, gradient in whole.items():
        torch.testing.assert_close(again[parameter], gradient, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize(("layout", "does"), [("whisper", "transcribes"), ("codec_llama", "speaks")])
def test_backbones_that_do_not_chat_refuse_a_dialogue(
    layout: str, does: str, clips: list[Prompt], tmp_path: Path
) -> None:
    LAYOUTS[layout].build(tmp_path, LAYOUTS[layout].ties[-1])
    refusing = load_adapter(LAYOUTS[layout].adapter, tmp_path)
    for view in (refusing.encode, refusing.vllm_prompt):
        with pytest.raises(DataError, match=rf"^prompt d1: metadata\.said makes it .* only {does}; take .+"):
            view(dialogue(clips, 1))
