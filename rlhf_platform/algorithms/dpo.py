"""A chosen sample against a rejected one: DPO (2305.18290), and pairs from rollouts, online DPO (2402.04792)."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rlhf_platform.algorithms.groups import deviations


def pair_loss(chosen: Tensor, rejected: Tensor, beta: float, loss_type: str) -> Tensor:
    """Loss per pair, (P,), of the log-ratios policy - reference of its samples, (P,) each, in nats, summed over tokens.

    With d = chosen - rejected:

    - `sigmoid`: -log sigmoid(beta d), DPO (2305.18290, equation 7).
    - `hinge`: max(0, 1 - beta d), SLiC (2305.10425), as compared in RSO (2309.06657).
    - `ipo`: (d - 1 / (2 beta))^2, which stops at a margin (2310.12036, equation 17). It takes log-ratios that are
      means over tokens, as the authors did though the paper does not say so: a margin asks no more of a longer sample.

    Raises ValueError for any other `loss_type`.
    """
    margin = chosen - rejected
    match loss_type:
        case "sigmoid":
            return -logsigmoid(beta * margin)
        case "hinge":
            return (1 - beta * margin).clamp(min=0.0)
        case "ipo":
            return (margin - 1 / (2 * beta)).square()
    raise ValueError(f"algorithm.loss_type is {loss_type!r}: sigmoid, hinge or ipo")


def best_and_worst(rewards: Tensor, scored: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which sample of each group is chosen, which rejected, both (P,) long, and which groups have a pair, (P,) bool.

    `rewards` (P, G); `scored` (P, G) bool, False where the reward failed: never chosen, never rejected. A group with
    fewer than two scored samples, or whose rewards are all equal, has no pair: its indices mean nothing. Of samples
    with the same reward the first counts.
    """
    best = rewards.masked_fill(~scored, -torch.inf).argmax(-1)
    worst = rewards.masked_fill(~scored, torch.inf).argmin(-1)
    return best, worst, deviations(rewards, scored)[1].squeeze(-1) > 0
