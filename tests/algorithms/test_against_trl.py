"""Each algorithm as a whole, advantages to loss and gradient, against TRL's own code."""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import entropy_from_logits, nanstd, selective_log_softmax

from rlhf_platform.algorithms.dr_grpo import centred_advantages
from rlhf_platform.algorithms.grpo import group_advantages
from rlhf_platform.algorithms.importance import importance_weights
from rlhf_platform.algorithms.logprobs import token_logprobs
from rlhf_platform.algorithms.normalization import token_shares, units
from rlhf_platform.learner.objective import token_loss
from rlhf_platform.recipe.algorithms import CISPO, DAPO, GDPO, GRPO, GSPO, PPO, DrGRPO, ReinforcePP, RLConfig

LONGEST = 6

# What TRL calls each algorithm; "bnpo" is its name for GRPO with a mean over tokens, the policy loss of PPO and
# REINFORCE++ too, and "delta" for PPO's dual clip.
CASES = [
    (GRPO(), {"loss_type": "grpo", "epsilon_low": 0.2, "epsilon_high": 0.2}),
    (GRPO(normalization="token"), {"loss_type": "bnpo", "epsilon_low": 0.2, "epsilon_high": 0.2}),
    (DrGRPO(), {"loss_type": "dr_grpo", "epsilon_low": 0.2, "epsilon_high": 0.2}),
    (DrGRPO(kl_coef=0.1), {"loss_type": "dr_grpo", "epsilon_low": 0.2, "epsilon_high": 0.2}),
    (DAPO(), {"loss_type": "dapo", "epsilon_low": 0.2, "epsilon_high": 0.28}),
    (GDPO(), {"loss_type": "grpo", "epsilon_low": 0.2, "epsilon_high": 0.2}),
    (PPO(), {"loss_type": "bnpo", "epsilon_low": 0.2, "epsilon_high": 0.2}),
    (PPO(dual_clip=3.0), {"loss_type": "bnpo", "epsilon_low": 0.2, "epsilon_high": 0.2, "delta": 3.0}),
    (ReinforcePP(), {"loss_type": "bnpo", "epsilon_low": 0.2, "epsilon_high": 0.2}),
    (ReinforcePP(kl_in="loss", kl_estimator="k3"), {"loss_type": "bnpo", "epsilon_low": 0.2, "epsilon_high": 0.2}),
    (CISPO(), {"loss_type": "cispo", "epsilon_high": 5.0}),
    (CISPO(ratio_cap=1.2), {"loss_type": "cispo", "epsilon_high": 1.2}),
    (
        GSPO(),
        {
            "loss_type": "grpo",
            "importance_sampling_level": "sequence",
            "epsilon_low": 3e-4,
            "epsilon_high": 4e-4,
        },
    ),
    (
        GSPO(clip_ratio=0.1, clip_ratio_high=0.15, kl_coef=0.1),
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon_low": 0.1, "epsilon_high": 0.15},
    ),
]


def trl_loss(
    settings: dict[str, object],
    algorithm: RLConfig,
    logprobs: Tensor,
    old: Tensor,
    behaviour: Tensor,
    reference: Tensor,
    advantages: Tensor,
    mask: Tensor,
) -> tuple[Tensor, float]:
    """TRL's loss on given log-probs, and the share that it reports as clipped."""
    metrics: dict[str, dict[str, list[float]]] = {"train": defaultdict(list)}
    settings = {"delta": None, "importance_sampling_level": "token"} | settings
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (logprobs, torch.zeros_like(logprobs), None),
        args=SimpleNamespace(use_bias_correction_kl=False, delta=settings.pop("delta"), steps_per_generation=1),
        accelerator=SimpleNamespace(reduce=lambda value, **_: value, gather=lambda value: value, num_processes=1),
        model=SimpleNamespace(training=True),
        _metrics=metrics,
        beta=algorithm.kl_coef if algorithm.kl_in == "loss" else 0.0,
        use_vllm=True,
        vllm_importance_sampling_correction=True,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        aux_loss_enabled=False,
        _entropy_bonus_enabled=False,
        current_gradient_accumulation_steps=1,
        max_completion_length=LONGEST,
        **settings,
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
        # As TRL has it, against whose own code it stands in test_samples_against_trl.py.
        "importance_sampling_ratio": (old - behaviour).exp().clamp(max=algorithm.importance_cap),
        "num_items_in_batch": mask.sum(),
    }
    loss = GRPOTrainer._compute_loss(trainer, None, inputs)
    found = metrics["train"]
    return loss, (found["clip_ratio/region_mean"] or found["cispo_clip_ratio"])[0]


@pytest.mark.parametrize(("algorithm", "settings"), CASES, ids=lambda value: getattr(value, "type", ""))
@pytest.mark.parametrize("seed", range(3))
def test_loss_gradient_and_clipped_share_are_those_of_trl(
    algorithm: RLConfig, settings: dict[str, object], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)

    def near(logprobs: Tensor, far: float) -> Tensor:
        return logprobs + far * torch.randn(logprobs.shape, generator=generator, dtype=torch.float64)

    rewards = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    scored = torch.tensor([[True, True, False, True], [True, True, True, True]]).repeat(3, 1)
    lengths = torch.randint(1, LONGEST + 1, (24, 1), generator=generator)
    complete = (torch.arange(LONGEST) < lengths).double()
    old = near(torch.full((24, LONGEST), -2.0, dtype=torch.float64), 0.5)
    # Far enough for CISPO's cap of 5, too.
    behaviour, reference, ours = near(old, 0.5), near(old, 0.3), near(old, 1.2)
    theirs = ours.clone().requires_grad_()
    ours.requires_grad_()

    mask = complete * scored.flatten().unsqueeze(1)
    in_group = centred_advantages if isinstance(algorithm, DrGRPO) else group_advantages
    advantages = in_group(rewards, scored).flatten().unsqueeze(1)
    weight = importance_weights(old, behaviour, mask, algorithm.importance, algorithm.importance_cap)
    seen = reference if algorithm.kl_coef else None
    found = token_loss(algorithm, ours, old, weight, seen, advantages, mask, algorithm.kl_coef)
    shares = token_shares(mask, algorithm.normalization, LONGEST)
    loss = (found.loss * shares).sum() / units(mask, algorithm.normalization)
    loss.backward()

    # TRL is not shown what failed: of its losses some would count it among the samples.
    known = rewards.masked_fill(~scored, float("nan"))
    standard = known - known.nanmean(-1, keepdim=True)
    if not isinstance(algorithm, DrGRPO):
        standard = standard / nanstd(known, dim=-1, keepdim=True)
    kept = scored.flatten()
    expected, clipped = trl_loss(
        settings,
        algorithm,
        theirs[kept],
        old[kept],
        behaviour[kept],
        reference[kept],
        standard.flatten()[kept],
        complete[kept],
    )
    expected.backward()

    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert (old - behaviour).exp().max() > algorithm.importance_cap  # the cap was at work
    # TRL's shares are of sequences for GSPO, and for CISPO leave out what was capped below A = 0.
    if isinstance(algorithm, GSPO):
        ours_clipped = found.clipped[kept, 0].double().mean()
    elif isinstance(algorithm, CISPO):
        ours_clipped = (found.clipped * (advantages > 0) * mask).sum() / mask.sum()
    elif isinstance(algorithm, PPO) and algorithm.dual_clip:
        # And what the dual clip bounds.
        dual = ((ours - old).exp() > algorithm.dual_clip) & (advantages < 0)
        assert found.clipped[dual].all()
        assert (dual * mask).any()
        ours_clipped = (found.clipped * ~dual * mask).sum() / mask.sum()
    else:
        ours_clipped = (found.clipped * mask).sum() / mask.sum()
    assert ours_clipped.item() == pytest.approx(clipped)
    assert (found.clipped * mask).any()


def test_log_probs_and_entropy_are_those_of_trl_when_every_token_is_allowed() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 5, 11, generator=generator)
    tokens = torch.randint(0, 11, (2, 5), generator=generator)
    chosen, entropy = token_logprobs(logits, tokens, torch.ones(11, dtype=torch.bool), 0.8)
    torch.testing.assert_close(chosen, selective_log_softmax(logits / 0.8, tokens))
    torch.testing.assert_close(entropy, entropy_from_logits(logits / 0.8))
