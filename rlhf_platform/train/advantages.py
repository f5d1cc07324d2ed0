"""From rewards to what each sample teaches: the advantage step of every algorithm, over the whole batch at once."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rlhf_platform.algorithms.dpo import best_and_worst
from rlhf_platform.algorithms.dr_grpo import centred_advantages
from rlhf_platform.algorithms.gae import generalised_advantages, token_rewards
from rlhf_platform.algorithms.gdpo import batch_normalised
from rlhf_platform.algorithms.grpo import group_advantages
from rlhf_platform.algorithms.reinforce_pp import globally_normalised_advantages
from rlhf_platform.algorithms.rloo import leave_one_out_advantages
from rlhf_platform.algorithms.whitening import whitened
from rlhf_platform.learner.samples import Seen, TrainSample
from rlhf_platform.recipe.algorithms import GDPO, PPO, RLOO, AlgorithmConfig, DrGRPO, OnlineDPO, ReinforcePP
from rlhf_platform.types import Scored, ScoredSample


def advantages_of(
    scored: Sequence[ScoredSample], algorithm: AlgorithmConfig, seen: Sequence[Seen] | None = None
) -> list[TrainSample]:
    """What the learner is to make of each sample, in the order it wants them; a failed sample counts nowhere (law 2).

    `scored`: consecutive groups of `group_size`. `seen`: what the learner sees in each sample before it learns, which
    `learner.objective.sees_first` says when to ask for.
    """
    match algorithm:
        case PPO() | ReinforcePP():
            assert seen is not None
            return _per_token(scored, algorithm, seen)
        case OnlineDPO():
            return _pairs(scored, algorithm.group_size)
    return _in_groups(scored, algorithm, seen)


def rewards_of(scored: Sequence[ScoredSample], group_size: int) -> tuple[Tensor, Tensor]:
    """Rewards (P, G) and which of them came out (P, G); 0 stands where one did not (law 2: it counts nowhere)."""
    came_out = torch.tensor([isinstance(s.outcome, Scored) for s in scored]).view(-1, group_size)
    rewards = torch.tensor([s.outcome.value if isinstance(s.outcome, Scored) else 0.0 for s in scored])
    return rewards.view(-1, group_size), came_out


def advantages_in_groups(algorithm: AlgorithmConfig, rewards: Tensor, scored: Tensor) -> Tensor:
    """How much better than its group each sample is, (P, G); `scored` (P, G) bool, False where the reward failed."""
    match algorithm:
        case DrGRPO():
            return centred_advantages(rewards, scored)
        case RLOO():
            return leave_one_out_advantages(rewards, scored)
        case GDPO():
            return batch_normalised(rewards, scored)
    return group_advantages(rewards, scored)


def _in_groups(
    scored: Sequence[ScoredSample], algorithm: AlgorithmConfig, seen: Sequence[Seen] | None
) -> list[TrainSample]:
    """One advantage per sample. The one sample that a group may be left with counts no more than a failed one: it has
    nothing to be compared with."""
    rewards, counts = rewards_of(scored, algorithm.group_size)
    if seen is not None:
        paid = [0.0 if s.penalty is None else float(s.penalty.sum()) for s in seen]
        rewards = rewards - torch.tensor(paid).view_as(rewards)
    advantages = advantages_in_groups(algorithm, rewards, counts)
    counts = counts & (counts.sum(-1, keepdim=True) > 1)
    known: Sequence[Seen | None] = seen or [None] * len(scored)
    return [
        TrainSample(s.sample, float(advantage), bool(count), it)
        for s, advantage, count, it in zip(scored, advantages.flatten(), counts.flatten(), known, strict=True)
    ]


def _per_token(scored: Sequence[ScoredSample], algorithm: PPO | ReinforcePP, seen: Sequence[Seen]) -> list[TrainSample]:
    """An advantage for each token, normalised over all learnt tokens of the batch, and for PPO the critic's targets."""
    final, counts = (values.flatten() for values in rewards_of(scored, 1))
    lengths = torch.tensor([len(s.trained) for s in seen])
    mask = (torch.arange(max(1, int(lengths.max()))) < lengths.unsqueeze(-1)) & counts.unsqueeze(-1)
    learnt = mask & _padded([s.trained for s in seen], mask).bool()
    rewards = token_rewards(final, _padded([s.penalty for s in seen], mask), mask)
    returns: Tensor | None = None
    if isinstance(algorithm, PPO):
        values = _padded([s.values for s in seen], mask)
        advantages, returns = generalised_advantages(rewards, values, mask, algorithm.gamma, algorithm.gae_lambda)
        advantages = whitened(advantages, learnt)
    else:
        advantages = globally_normalised_advantages(rewards, mask, learnt, algorithm.gamma)
    return [
        TrainSample(
            sample=s.sample,
            advantage=advantages[i, :length].numpy(),
            counts=bool(counts[i]),
            seen=seen[i],
            returns=None if returns is None else returns[i, :length].numpy(),
        )
        for i, (s, length) in enumerate(zip(scored, lengths.tolist(), strict=True))
    ]


def _pairs(scored: Sequence[ScoredSample], group_size: int) -> list[TrainSample]:
    """The best sample of each prompt, and after it the worst; a prompt without a pair has two that do not count."""
    best, worst, has_pair = best_and_worst(*rewards_of(scored, group_size))
    found: list[TrainSample] = []
    for group, (chosen, rejected, counts) in enumerate(zip(best, worst, has_pair, strict=True)):
        for index, sign in ((chosen, 1.0), (rejected, -1.0)):
            found.append(TrainSample(scored[group * group_size + int(index)].sample, sign, bool(counts)))
    return found


def _padded(arrays: Sequence[np.ndarray | None], mask: Tensor) -> Tensor:
    """Arrays (T_i,) as one tensor (N, T), 0 beyond their ends and where there is none."""
    found = torch.zeros(mask.shape)
    for row, array in enumerate(arrays):
        if array is not None:
            found[row, : len(array)] = torch.from_numpy(np.array(array, dtype=np.float32))
    return found
