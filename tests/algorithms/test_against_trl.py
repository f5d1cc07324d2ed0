"""GRPO as a whole, advantages to loss and gradient, against TRL's own code."""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import entropy_from_logits, nanstd, selective_log_softmax

from rlhf_platform.algorithms.grpo import group_advantages
from rlhf_platform.algorithms.importance import truncated_importance
from rlhf_platform.algorithms.kl import kl_to_reference
from rlhf_platform.algorithms.logprobs import token_logprobs
from rlhf_platform.algorithms.policy_loss import clipped_surrogate

CLIP, KL, CAP = 0.2, 0.04, 2.0


def trl_loss(logprobs: Tensor, old: Tensor, behaviour: Tensor, reference: Tensor, advantages: Tensor, mask: Tensor):
    """TRL's loss on given log-probs; "bnpo" is its name for GRPO with a mean over tokens."""
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (logprobs, torch.zeros_like(logprobs), None),
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None),
        accelerator=SimpleNamespace(reduce=lambda value, **_: value, gather=lambda value: value),
        model=SimpleNamespace(training=True),
        _metrics={"train": defaultdict(list)},
        loss_type="bnpo",
        importance_sampling_level="token",
        beta=KL,
        epsilon_low=CLIP,
        epsilon_high=CLIP,
        use_vllm=True,
        vllm_importance_sampling_correction=True,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        aux_loss_enabled=False,
        _entropy_bonus_enabled=False,
        current_gradient_accumulation_steps=1,
    )
    ids = torch.zeros(mask.shape, dtype=torch.long)
    inputs = {
        "prompt_ids": ids,
        "prompt_mask": ids,
        "completion_ids": ids,
        "completion_mask": mask,
        "advantages": advantages,
        "old_per_token_logps": old,
        "ref_per_token_logps": reference,
        "importance_sampling_ratio": (old - behaviour).exp().clamp(max=CAP),
    }
    return GRPOTrainer._compute_loss(trainer, None, inputs)


@pytest.mark.parametrize("seed", range(5))
def test_loss_and_gradient_are_those_of_trl(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def near(logprobs: Tensor, far: float) -> Tensor:
        return logprobs + far * torch.randn(logprobs.shape, generator=generator, dtype=torch.float64)

    rewards = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    scored = torch.tensor([[True, True, False, True], [True, True, True, True]])
    lengths = torch.randint(1, 7, (8, 1), generator=generator)
    mask = (torch.arange(6) < lengths).double() * scored.flatten().unsqueeze(1)
    old = near(torch.full((8, 6), -2.0, dtype=torch.float64), 0.5)
    behaviour, reference, ours = near(old, 0.5), near(old, 0.3), near(old, 0.3)
    theirs = ours.clone().requires_grad_()
    ours.requires_grad_()

    advantages = group_advantages(rewards, scored).flatten().unsqueeze(1)
    weighted = truncated_importance(old, behaviour, CAP) * clipped_surrogate(ours, old, advantages, CLIP)
    loss = ((weighted + KL * kl_to_reference(ours, reference)) * mask).sum() / mask.sum()
    loss.backward()

    # TRL: what failed is NaN, mean and spread are over the rest.
    known = rewards.masked_fill(~scored, float("nan"))
    standard = (known - known.nanmean(-1, keepdim=True)) / nanstd(known, dim=-1, keepdim=True)
    expected = trl_loss(theirs, old, behaviour, reference, standard.nan_to_num(0.0).flatten(), mask)
    expected.backward()

    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert ((ours.detach() - old).exp() - 1).abs().max() > CLIP  # the clip was at work, and so was the cap
    assert (old - behaviour).exp().max() > CAP


def test_log_probs_and_entropy_are_those_of_trl_when_every_token_is_allowed() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 5, 11, generator=generator)
    tokens = torch.randint(0, 11, (2, 5), generator=generator)
    chosen, entropy = token_logprobs(logits, tokens, torch.ones(11, dtype=torch.bool), 0.8)
    torch.testing.assert_close(chosen, selective_log_softmax(logits / 0.8, tokens))
    torch.testing.assert_close(entropy, entropy_from_logits(logits / 0.8))
