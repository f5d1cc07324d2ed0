"""What is of whole samples, RLOO, GDPO, importance weights and the losses of pairs, against TRL's own code."""

import math
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_trainer import RLOOTrainer

from rlhf_platform.algorithms.dpo import pair_loss
from rlhf_platform.algorithms.gdpo import batch_normalised
from rlhf_platform.algorithms.grpo import group_advantages
from rlhf_platform.algorithms.importance import importance_weights
from rlhf_platform.algorithms.kl import kl_estimate
from rlhf_platform.algorithms.normalization import token_shares, units
from rlhf_platform.algorithms.rloo import leave_one_out_advantages, whole_sequence_surrogate

LONGEST, PROMPTS, SAMPLES = 6, 6, 4
SEEDS = pytest.mark.parametrize("seed", range(3))


class Plain(torch.nn.Module):
    """What TRL asks of a model that it does not run."""

    is_gradient_checkpointing = False


def batch(seed: int) -> tuple[torch.Generator, Tensor, Tensor, Tensor]:
    """Log-probs and mask of 24 samples, (24, 6), and which of them were scored, (6, 4)."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, LONGEST + 1, (PROMPTS * SAMPLES, 1), generator=generator)
    # TRL pads to the longest sample.
    lengths[0] = LONGEST
    mask = (torch.arange(LONGEST) < lengths).double()
    old = -2.0 + 0.5 * torch.randn(mask.shape, generator=generator, dtype=torch.float64)
    scored = torch.tensor([[True, True, False, True], [True] * 4, [False, True, False, False]]).repeat(2, 1)
    return generator, old, mask, scored


def near(logprobs: Tensor, far: float, generator: torch.Generator) -> Tensor:
    return logprobs + far * torch.randn(logprobs.shape, generator=generator, dtype=torch.float64)


def trl_scoring(
    kind: type[GRPOTrainer] | type[RLOOTrainer], old: Tensor, mask: Tensor, rewards: Tensor, **settings: Any
) -> dict[str, Tensor]:
    """What TRL makes of samples before it trains on them: their advantages, and the weights that correct rollout's
    log-probs. `rewards` (24, terms), not a number where the reward failed."""
    lengths = mask.sum(-1).long().tolist()
    completions = [[1] * length for length in lengths]
    reference, behaviour = settings.pop("reference", None), settings.pop("behaviour", None)
    policy, frozen = (SimpleNamespace(training=True, is_gradient_checkpointing=False) for _ in range(2))
    rows = zip(behaviour if behaviour is not None else [], lengths, strict=behaviour is not None)
    sampled = [row[:length].tolist() for row, length in rows] or None
    generated: tuple[Any, ...] = ([[1]] * len(lengths), completions, completions)
    if kind is GRPOTrainer:
        generated = ([[1]] * len(lengths), completions, None, completions, sampled, {}, None, None)
    names = [f"term_{i}" for i in range(rewards.shape[1])]
    trainer = SimpleNamespace(
        model=policy,
        ref_model=frozen,
        beta=0.0,
        num_generations=SAMPLES,
        reward_weights=torch.ones(rewards.shape[1], dtype=torch.float64),
        reward_clip_range=None,
        reward_func_names=names,
        reward_funcs=names,
        normalize_advantages=False,
        scale_rewards="group",
        multi_objective_aggregation="sum_then_normalize",
        mask_truncated_completions=False,
        use_vllm=behaviour is not None,
        vllm_importance_sampling_correction=True,
        vllm_importance_sampling_clip_min=None,
        num_iterations=1,
        environment_factories=None,
        environments=None,
        tools=None,
        pad_to_multiple_of=None,
        log_multimodal=False,
        accelerator=SimpleNamespace(
            device="cpu", process_index=0, reduce=lambda value, **_: value, gather=lambda value: value
        ),
        args=SimpleNamespace(
            per_device_train_batch_size=len(lengths),
            gradient_checkpointing_kwargs=None,
            steps_per_generation=1,
            gradient_accumulation_steps=1,
        ),
        _tokenizer=SimpleNamespace(pad_token_id=0),
        _generate=lambda _: generated,
        _calculate_rewards=lambda *_: rewards,
        _get_per_token_logps_and_entropies=lambda model, *_, **__: (
            reference if model is frozen else old,
            None,
            None,
        ),
        _metrics={"train": defaultdict(list)},
        _logs={"prompt": [], "completion": [], "advantages": [], "rewards": defaultdict(list)},
        _pending_extra_logs={},
        _pending_metrics={},
    )
    vars(trainer).update(settings)
    found: dict[str, Tensor] = kind._generate_and_score_completions(trainer, [{"prompt": "p"}] * len(lengths))
    return found


def known(rewards: Tensor, scored: Tensor) -> Tensor:
    """(24, terms) of (terms, 6, 4)."""
    return rewards.masked_fill(~scored, math.nan).flatten(1).T


@SEEDS
@pytest.mark.parametrize("kl_coef", [0.0, 0.3])
def test_rloo_as_a_whole(seed: int, kl_coef: float) -> None:
    generator, old, mask, scored = batch(seed)
    reference, ours = near(old, 0.3, generator), near(old, 0.15, generator)
    theirs = ours.clone().requires_grad_()
    ours.requires_grad_()
    rewards = torch.randn(PROMPTS, SAMPLES, generator=generator, dtype=torch.float64)

    paid = kl_coef * (kl_estimate(old, reference, "k1") * mask).sum(-1).view_as(rewards)
    advantages = leave_one_out_advantages(rewards - paid, scored).view(-1, 1)
    loss, clipped = whole_sequence_surrogate(ours - old, mask, advantages, 0.2)
    # TRL takes its mean over what failed too.
    total = (loss * token_shares(mask, "sequence", LONGEST)).sum() / units(mask, "sequence")
    total.backward()

    given = known(rewards.unsqueeze(0), scored)
    inputs = trl_scoring(RLOOTrainer, old, mask, given, beta=kl_coef, reference=reference)
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (theirs, torch.zeros_like(theirs), None),
        accelerator=SimpleNamespace(reduce=lambda value, **_: value, gather=lambda value: value),
        model=SimpleNamespace(training=True),
        _metrics={"train": defaultdict(list)},
        aux_loss_enabled=False,
        epsilon_low=0.2,
        epsilon_high=0.2,
    )
    expected = RLOOTrainer._compute_loss(trainer, None, inputs)
    expected.backward()

    torch.testing.assert_close(advantages.flatten(), inputs["advantages"])
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert clipped[:, 0].double().mean().item() == pytest.approx(trainer._metrics["train"]["clip_ratio/region_mean"][0])
    assert clipped.any()


@SEEDS
def test_advantages_of_gdpo_but_for_what_trl_adds_to_a_spread(seed: int) -> None:
    generator, old, mask, scored = batch(seed)
    # TRL divides by a group's spread + 1e-4: large rewards make that nothing.
    rewards = 1e6 * torch.randn(3, PROMPTS, SAMPLES, generator=generator, dtype=torch.float64)
    weights = torch.tensor([1.0, 0.5, 0.25], dtype=torch.float64)
    # A group with one sample is no number to TRL.
    scored = scored[[0, 1, 0, 1, 0, 1]]
    sums = sum((w * group_advantages(term, scored) for w, term in zip(weights, rewards, strict=True)), torch.zeros(()))
    found = batch_normalised(sums, scored).flatten()
    expected = trl_scoring(
        GRPOTrainer,
        old,
        mask,
        known(rewards, scored),
        multi_objective_aggregation="normalize_then_sum",
        reward_weights=weights,
    )["advantages"]
    # And by the spread of the batch + 1e-4, a factor for all: ours has the spread 1.
    torch.testing.assert_close(found, expected / expected[scored.flatten()].std())
    assert expected[scored.flatten()].std().item() == pytest.approx(1, abs=1e-3)


@SEEDS
@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        ("token", "token_truncate"),
        ("sequence", "sequence_truncate"),
        ("token_mask", "token_mask"),
        ("sequence_mask", "sequence_mask"),
    ],
)
def test_importance_weights(seed: int, kind: str, mode: str) -> None:
    generator, old, mask, scored = batch(seed)
    # As float32, as an engine reports them.
    behaviour = near(old, 0.5, generator).float()
    rewards = torch.randn(1, PROMPTS, SAMPLES, generator=generator, dtype=torch.float64)
    cap = 2.0
    expected = trl_scoring(
        GRPOTrainer,
        old,
        mask,
        known(rewards, scored),
        behaviour=behaviour,
        vllm_importance_sampling_mode=mode,
        vllm_importance_sampling_clip_max=cap,
        vllm_importance_sampling_clip_min=1 / cap if kind.endswith("mask") else None,
    )["importance_sampling_ratio"]
    found = importance_weights(old, behaviour, mask, kind, cap)
    # What TRL has at padding is multiplied by a mask later.
    torch.testing.assert_close(found, expected * mask)
    bounded = found[mask.bool()]
    assert (bounded == (0 if kind.endswith("mask") else cap)).any()
    assert ((bounded > 0) & (bounded < cap)).any()


@SEEDS
@pytest.mark.parametrize("loss_type", ["sigmoid", "hinge", "ipo"])
def test_losses_of_pairs(seed: int, loss_type: str) -> None:
    generator, old, mask, _ = batch(seed)
    reference, theirs = near(old, 0.3, generator), (old * mask).requires_grad_()
    ours = old.clone().requires_grad_()
    # One token of a prompt stands before each sample, as TRL's shift wants; chosen ones first.
    whole = torch.cat([torch.zeros(len(mask), 1), mask], 1).long()

    def model(logprobs: Tensor) -> Any:
        nothing = torch.zeros_like(logprobs).detach()
        return lambda **_: SimpleNamespace(
            log_probs=logprobs, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool()
        )

    trainer = SimpleNamespace(
        accelerator=SimpleNamespace(device="cpu", gather=lambda value: value, gather_for_metrics=lambda value: value),
        model=Plain(),
        ref_model=model(reference * mask),
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=False,
        f_divergence_type="reverse_kl",
        loss_types=[loss_type],
        loss_weights=[1.0],
        beta=0.4,
        use_weighting=False,
        _total_train_tokens=0,
        _tp_size=1,
        _metrics={"train": defaultdict(list)},
    )
    inputs = {"input_ids": whole, "attention_mask": whole, "completion_mask": whole}
    expected = DPOTrainer._compute_loss(trainer, model(theirs), inputs, False)
    expected.backward()

    ratios = ((ours - reference) * mask).sum(-1)
    if loss_type == "ipo":
        ratios = ratios / mask.sum(-1)
    loss = pair_loss(*ratios.chunk(2), 0.4, loss_type).mean()
    loss.backward()
    torch.testing.assert_close(loss, expected)
    assert theirs.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad * mask)
    assert theirs.grad.any()
