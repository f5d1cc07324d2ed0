"""LoRA in a real model of every layout: where it goes, what it merges to (against PEFT), what is saved."""

from pathlib import Path

import peft
import pytest
import torch

from policies.batch import make_batch
from policies.load import load_adapter
from policies.lora import (
    add_lora,
    has_lora,
    is_lora,
    lora_weights,
    merged_weights,
    save_adapter,
    save_merged,
    without_lora,
    write_lora,
)
from policies.policy import Policy
from rlhf_platform.errors import RecipeError
from rlhf_platform.recipe.schema import LoraConfig
from rlhf_platform.types import Prompt
from tests.layouts import LAYOUTS

LORA = LoraConfig(rank=3, alpha=7.0)


@pytest.fixture(scope="module", params=LAYOUTS)
def policy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Policy:
    """With LoRA, A and B drawn at random."""
    layout, path = LAYOUTS[request.param], tmp_path_factory.mktemp(request.param)
    layout.build(path, layout.ties[-1])
    adapter = load_adapter(layout.adapter, path)
    model = adapter.load_model(torch.float32)
    add_lora(adapter, model, LORA, "learner.lora", seed=0)
    policy = Policy(adapter, model, 1.0, freeze_encoder=True).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_lora(name):
                parameter.normal_(std=0.2)
    return policy


def logprobs(policy: Policy, clips: list[Prompt]) -> torch.Tensor:
    adapter = policy.adapter
    completions = [adapter.completion_token_ids[i : i + 4] for i in range(len(clips))]
    encoded = [adapter.encode(clip) for clip in clips]
    batch = make_batch(encoded, range(len(clips)), completions, adapter.tokenizer.pad_token_id)
    with torch.no_grad():
        return policy(batch)[0]


def test_lora_is_in_the_decoder_alone_and_nothing_else_learns(policy: Policy) -> None:
    adapter, model = policy.adapter, policy.model
    changed = {name.rpartition(".lora_A.")[0] for name, _ in model.named_parameters() if ".lora_A." in name}
    assert {name.rpartition(".")[2] for name in changed} == set(adapter.lora_targets)
    for name in changed:
        assert not adapter.is_encoder(f"{name}.weight"), name
        assert not adapter.is_adaptor(f"{name}.weight"), name
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        name for name, _ in model.named_parameters() if is_lora(name)
    }
    assert policy.encoder_is_frozen


def test_fresh_lora_changes_nothing_and_is_the_same_on_every_rank(policy: Policy, clips: list[Prompt]) -> None:
    adapter = policy.adapter
    models = [adapter.load_model(torch.float32) for _ in range(3)]
    for rank, model in enumerate(models[1:]):
        torch.manual_seed(rank)
        add_lora(adapter, model, LORA, "learner.lora", seed=5)
    start, left, right = (Policy(adapter, model, 1.0, freeze_encoder=True).eval() for model in models)
    assert torch.equal(logprobs(start, clips), logprobs(left, clips))
    for one, other in zip(left.model.parameters(), right.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_without_lora_the_policy_is_the_one_it_started_from(policy: Policy, clips: list[Prompt]) -> None:
    start = Policy(policy.adapter, policy.adapter.load_model(torch.float32), 1.0, freeze_encoder=True).eval()
    before = logprobs(policy, clips)
    with without_lora(policy.model):
        assert torch.equal(logprobs(policy, clips), logprobs(start, clips))
    assert torch.equal(logprobs(policy, clips), before)
    assert (before - logprobs(start, clips)).abs().max() > 1e-2


def test_merged_weights_are_those_that_peft_merges_from_our_files(policy: Policy, tmp_path: Path) -> None:
    adapter = policy.adapter
    tensors = {  # under the paths of Transformers, which PEFT is to find here; vLLM is sent its own
        f"base_model.model.{path}.{part}.weight": tensor
        for path, (a, b) in _pairs(policy)
        for part, tensor in (("lora_A", a), ("lora_B", b))
    }
    write_lora(tensors, LORA.rank, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    loaded = peft.PeftModel.from_pretrained(adapter.load_model(torch.float32), tmp_path)
    expected = dict(loaded.merge_and_unload().named_parameters())
    found = dict(merged_weights(policy.model))
    assert found.keys() == expected.keys()
    for name, weight in found.items():
        torch.testing.assert_close(weight, expected[name].detach(), rtol=0, atol=1e-6, msg=f"{name} differs")
    start = dict(adapter.load_model(torch.float32).named_parameters())
    moved = {name for name, weight in found.items() if not torch.equal(weight, start[name])}
    assert moved == {f"{path}.weight" for path, _ in _pairs(policy)}


def _pairs(policy: Policy) -> list[tuple[str, tuple[torch.Tensor, torch.Tensor]]]:
    """(A, B) as they are sent, by the path of their layer in the Transformers model."""
    paths = [name.rpartition(".lora_A.")[0] for name, _ in policy.model.named_parameters() if ".lora_A." in name]
    sent = dict(lora_weights(policy.adapter, policy.model))
    assert len(sent) == 2 * len(paths)
    named = {path: policy.adapter.vllm_name(f"{path}.weight").removesuffix(".weight") for path in paths}
    return [
        (path, (sent[f"base_model.model.{name}.lora_A.weight"], sent[f"base_model.model.{name}.lora_B.weight"]))
        for path, name in named.items()
    ]


def test_what_is_saved_is_a_plain_checkpoint_with_the_policys_logprobs(
    policy: Policy, clips: list[Prompt], tmp_path: Path
) -> None:
    save_merged(policy.adapter, policy.model, tmp_path)
    saved = type(policy.adapter)(tmp_path)
    again = Policy(saved, saved.load_model(torch.float32), 1.0, freeze_encoder=True).eval()
    assert not has_lora(again.model)
    torch.testing.assert_close(logprobs(again, clips), logprobs(policy, clips), rtol=0, atol=1e-4)


def test_in_bfloat16_lora_and_what_it_merges_to_are_bfloat16(policy: Policy) -> None:
    model = policy.adapter.load_model(torch.bfloat16)
    add_lora(policy.adapter, model, LORA, "learner.lora", seed=0)
    assert {p.dtype for name, p in model.named_parameters() if is_lora(name)} == {torch.bfloat16}
    assert {name: w.dtype for name, w in merged_weights(model)} == {
        name: p.dtype for name, p in policy.adapter.load_model(torch.bfloat16).named_parameters()
    }


def test_a_target_that_the_decoder_does_not_have_is_refused(tiny_checkpoint: Path) -> None:
    adapter = load_adapter("qwen3_asr", tiny_checkpoint)
    model = adapter.load_model(torch.float32)
    for target in ("conv1d", "fc1", "lm_head"):  # fc1 is the encoder's
        with pytest.raises(RecipeError) as raised:
            add_lora(adapter, model, LoraConfig(rank=2, targets=["q_proj", target]), "sft.lora", seed=0)
        assert str(raised.value) == (
            f"sft.lora.targets has {target}: the decoder has no such linear layer; "
            "allowed down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
        )


def test_only_the_named_targets_are_changed(tiny_checkpoint: Path) -> None:
    adapter = load_adapter("qwen3_asr", tiny_checkpoint)
    model = adapter.load_model(torch.float32)
    add_lora(adapter, model, LoraConfig(rank=2, targets=["q_proj"]), "learner.lora", seed=0)
    names = {name.rpartition(".lora_")[0].rpartition(".")[2] for name, _ in model.named_parameters() if is_lora(name)}
    assert names == {"q_proj"}


def test_the_saved_adapter_is_what_peft_reads_for_the_weights_that_were_there_before(
    policy: Policy, clips: list[Prompt], tmp_path: Path
) -> None:
    adapter = policy.adapter
    save_adapter(policy.model, LORA.rank, tmp_path / "adapter")
    base = adapter.load_model(torch.float32)
    before = logprobs(Policy(adapter, base, 1.0, freeze_encoder=True).eval(), clips)
    loaded = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").get_base_model()
    after = logprobs(Policy(adapter, loaded, 1.0, freeze_encoder=True).eval(), clips)
    torch.testing.assert_close(after, logprobs(policy, clips), rtol=1e-4, atol=1e-4)
    assert float((after - before).abs().max()) > 1e-3
