"""Rewards per token and what is to come from a token on: generalised advantage estimation (1506.02438).

All (B, T). Tokens outside `mask` are stepped over as if they were not there, whatever stands in their place, and the
end of a sample is terminal: nothing is worth anything after it. `mask` is of all sampled tokens, learnt or not.
"""

import torch
from torch import Tensor


def token_rewards(final: Tensor, penalty: Tensor, mask: Tensor) -> Tensor:
    """The reward of each token, (B, T): minus its penalty, plus, at the last token of `mask`, the sample's own reward.

    `final` (B,) is the reward of the whole sample; `penalty` (B, T) what each token pays, as `kl_coef` times its KL
    (2203.02155, equation 2, as paid per token since 1909.08593); `mask` (B, T). 0 outside the mask.
    """
    kept = mask > 0
    last = kept & (kept.flip(-1).cumsum(-1).flip(-1) == 1)
    return torch.where(last, final.unsqueeze(-1), 0.0) - penalty.masked_fill(~kept, 0.0)


def rewards_to_go(rewards: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """What is to come from each token on, its own reward included, discounted by `gamma` per token; 0 outside the mask.

    `rewards`, `mask` (B, T), the result too.
    """
    return generalised_advantages(rewards, torch.zeros_like(rewards), mask, gamma, lam=1.0)[1]


def generalised_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """How much better than the critic thought each token was, and the critic's target: advantages and returns, (B, T).

    `rewards` (B, T), at every token or at the last alone; `values` (B, T), what the critic expects before the token
    is sampled; `mask` (B, T). `gamma` discounts per token. `lam` 1 trusts the rewards alone, 0 the critic's next value
    (equation 16). Returns are advantages + values. Both carry no gradient, and are 0 outside the mask.
    """
    kept = mask > 0
    rewards, values = rewards.detach(), values.detach()
    advantages = torch.zeros_like(values)
    advantage, next_value = torch.zeros_like(values[:, 0]), torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        here, value = kept[:, t], values[:, t]
        error = rewards[:, t] + gamma * next_value - value
        advantage = torch.where(here, error + gamma * lam * advantage, advantage)
        next_value = torch.where(here, value, next_value)
        advantages[:, t] = torch.where(here, advantage, 0.0)
    return advantages, torch.where(kept, advantages + values, 0.0)
