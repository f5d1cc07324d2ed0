"""Every layout's model: TRL's loss is that of our states, no clip changes another, its parts are told apart."""

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel
from trl.trainer.utils import add_fused_lm_head

from policies.adapter import PolicyAdapter
from policies.batch import PolicyBatch, make_batch, pad_features
from policies.load import load_adapter
from policies.policy import Policy
from rlhf_platform.types import Prompt
from tests.layouts import CASES, HEARING, LAYOUTS


def loaded(name: str, tied: bool, path: Path) -> tuple[PolicyAdapter, PreTrainedModel]:
    LAYOUTS[name].build(path, tied)
    adapter = load_adapter(LAYOUTS[name].adapter, path)
    return adapter, adapter.load_model(torch.float32).eval()


def labels_of(batch: PolicyBatch) -> torch.Tensor:
    """Each completion token where it stands in `input_ids`, -100 elsewhere."""
    labels = torch.full_like(batch.input_ids, -100)
    rows, columns = batch.completion_mask.nonzero(as_tuple=True)
    labels[rows, batch.logit_positions[rows, columns] + 1] = batch.completion_ids[rows, columns]
    return labels


@pytest.mark.parametrize(("name", "tied"), [case for case in CASES if case[0] in HEARING])
@torch.no_grad()
def test_the_loss_of_trls_trainer_is_that_of_our_states(
    name: str, tied: bool, clips: list[Prompt], tmp_path: Path
) -> None:
    adapter, model = loaded(name, tied, tmp_path)
    targets = [adapter.target(clip) for clip in clips]
    batch = make_batch([adapter.encode(clip) for clip in clips], range(4), targets, adapter.tokenizer.pad_token_id)
    assert batch.features is not None
    assert batch.features_mask is not None
    audio = adapter.audio_states(model, batch.features, batch.features_mask)
    states = adapter.hidden_states(model, batch, audio)
    where = batch.logit_positions.unsqueeze(-1).expand(-1, -1, states.shape[-1])
    logprobs = model.get_output_embeddings()(states.gather(1, where)).log_softmax(-1)
    chosen = logprobs.gather(2, batch.completion_ids.unsqueeze(-1)).squeeze(-1)
    ours = -(chosen * batch.completion_mask).sum() / batch.completion_mask.sum()
    add_fused_lm_head(model)
    theirs = model(**adapter.model_inputs(batch, labels_of(batch)), fused_lm_head=True)
    assert theirs.label_mask.sum() == batch.completion_mask.sum()
    assert torch.allclose(-theirs.log_probs.sum() / theirs.label_mask.sum(), ours, atol=1e-5)


@pytest.mark.parametrize("name", HEARING)
@torch.no_grad()
def test_a_clip_is_heard_the_same_beside_longer_ones(name: str, clips: list[Prompt], tmp_path: Path) -> None:
    adapter, model = loaded(name, LAYOUTS[name].ties[0], tmp_path)
    encoded = [adapter.encode(clip) for clip in clips]
    together = adapter.audio_states(model, *pad_features(encoded))
    for clip, expected in zip(encoded, together, strict=True):
        (alone,) = adapter.audio_states(model, *pad_features([clip]))
        assert alone.shape == expected.shape
        assert torch.allclose(alone, expected, atol=1e-5)


@pytest.mark.parametrize("name", HEARING)
def test_encoder_adaptor_and_decoder_share_no_parameter_and_none_is_empty(name: str, tmp_path: Path) -> None:
    adapter, model = loaded(name, LAYOUTS[name].ties[0], tmp_path)
    names = [parameter for parameter, _ in model.named_parameters()]
    encoder = {parameter for parameter in names if adapter.is_encoder(parameter)}
    adaptor = {parameter for parameter in names if adapter.is_adaptor(parameter)}
    head = next(n for n, p in model.named_parameters() if p is model.get_output_embeddings().weight)
    assert encoder
    assert not encoder & adaptor
    assert head not in encoder | adaptor


@pytest.mark.parametrize("name", LAYOUTS)
@torch.no_grad()
def test_in_bfloat16_logprobs_are_those_of_float32_but_for_rounding(
    name: str, clips: list[Prompt], tmp_path: Path
) -> None:
    LAYOUTS[name].build(tmp_path, LAYOUTS[name].ties[0])
    adapter = load_adapter(LAYOUTS[name].adapter, tmp_path)
    completions = [adapter.completion_token_ids[:4]] * len(clips)
    pad = adapter.tokenizer.pad_token_id
    batch = make_batch([adapter.encode(clip) for clip in clips], range(len(clips)), completions, pad)
    found = {
        dtype: Policy(adapter, adapter.load_model(dtype), 1.0, freeze_encoder=True).eval()(batch)[0]
        for dtype in (torch.float32, torch.bfloat16)
    }
    assert (found[torch.float32] - found[torch.bfloat16]).abs().mean() < 0.2
