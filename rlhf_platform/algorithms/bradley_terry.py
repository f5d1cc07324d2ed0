"""What a pair of rewards says of a judged pair: Bradley and Terry (Biometrika 39, 1952), with margins and ties."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

BINS = 10
"""Of the probability of the likelier side, from 0.5 to 1."""


def comparison_loss(
    difference: Tensor, margin: Tensor, tie: Tensor, threshold: float, smoothing: float = 0.0
) -> Tensor:
    """Minus the log-likelihood of each judgement, (P,), in nats.

    `difference` (P,): reward of the chosen answer less that of the rejected; `margin` (P,) at least 0, in units of the
    reward; `tie` (P,) bool, where neither was chosen and the margin says nothing. With t = `threshold`, at least 0:

    - chosen: -log sigmoid(difference - margin - t); the margin as in Llama 2 (2307.09288, equation 2).
    - tie: -log((e^2t - 1) sigmoid(difference - t) sigmoid(-difference - t)), Rao and Kupper (JASA 62, 1967) with their
      theta = e^t; infinite at t = 0, where Bradley and Terry know no tie.

    `smoothing`: share e of the choices taken to be wrong: (1 - e) times the first, and e times that of the other answer
    (as 2403.00409 has it before its correction). A margin is then of the choice as it stands.
    """
    won = -logsigmoid(difference - margin - threshold)
    if smoothing:
        won = (1 - smoothing) * won - smoothing * logsigmoid(-difference - margin - threshold)
    room = torch.expm1(difference.new_tensor(2 * threshold)).log()
    tied = -(room + logsigmoid(difference - threshold) + logsigmoid(-difference - threshold))
    return torch.where(tie, tied, won)


def calibration_counts(difference: Tensor) -> Tensor:
    """Of each of BINS bins, (BINS, 3): pairs, sum of the probability of the likelier side, pairs where it was chosen.

    `difference` (P,): reward of the chosen answer less that of the rejected. Sums over parts are those of the whole.
    """
    surety = difference.abs().sigmoid()
    place = ((2 * surety - 1) * BINS).long().clamp(0, BINS - 1)
    values = torch.stack([torch.ones_like(surety), surety, (difference > 0).to(surety.dtype)], dim=-1)
    return surety.new_zeros(BINS, 3).index_add(0, place, values)


def calibration_error(counts: Tensor) -> float:
    """Expected calibration error (1706.04599): how far the share of right choices is from how sure the model was, mean
    over pairs. 0 is a model that is right as often as it says; NaN without pairs."""
    pairs, surety, right = counts.unbind(-1)
    return float((right - surety).abs().sum() / pairs.sum())
