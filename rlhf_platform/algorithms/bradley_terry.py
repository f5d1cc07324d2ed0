"""What a pair of rewards says of a judged pair: Bradley and Terry (Biometrika 39, 1952), with margins and ties."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def comparison_loss(difference: Tensor, margin: Tensor, tie: Tensor, threshold: float) -> Tensor:
    """Minus the log-likelihood of each judgement, (P,), in nats.

    `difference` (P,): reward of the chosen answer less that of the rejected; `margin` (P,) at least 0, in units of the
    reward; `tie` (P,) bool, where neither was chosen and the margin says nothing. With t = `threshold`, at least 0:

    - chosen: -log sigmoid(difference - margin - t); the margin as in Llama 2 (2307.09288, equation 2).
    - tie: -log((e^2t - 1) sigmoid(difference - t) sigmoid(-difference - t)), Rao and Kupper (JASA 62, 1967) with their
      theta = e^t; infinite at t = 0, where Bradley and Terry know no tie.
    """
    won = -logsigmoid(difference - margin - threshold)
    room = torch.expm1(difference.new_tensor(2 * threshold)).log()
    tied = -(room + logsigmoid(difference - threshold) + logsigmoid(-difference - threshold))
    return torch.where(tie, tied, won)
