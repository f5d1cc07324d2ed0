"""KL divergence from the policy to the reference, estimated on sampled tokens, and the weight that steers it."""

from torch import Tensor

_GAIN = 0.1
_LARGEST_ERROR = 0.2


def kl_estimate(logprobs: Tensor, reference: Tensor, estimator: str) -> Tensor:
    """Estimate per token, (B, T), in nats (Schulman 2020, "Approximating KL divergence"); with d = reference - policy:

    - `k1`: -d. Unbiased, noisy, of either sign. For a reward: as a loss its gradient is 0 in the mean.
    - `k2`: d^2 / 2. Biased by little near the reference, and never below 0; its gradient is the KL's own in the mean.
    - `k3`: exp(d) - d - 1. Unbiased, and never below 0 (GRPO 2402.03300, equation 4).
    - `straight_through`: the value of k3 with the gradient of k2, so that the figure and the pull are both unbiased.

    `logprobs` (B, T) of the policy carries the gradient; `reference` (B, T). Raises ValueError for any other name.
    """
    difference = reference - logprobs
    match estimator:
        case "k1":
            return -difference
        case "k2":
            return difference.square() / 2
        case "k3":
            # expm1: near 0, where a policy starts, exp(d) - 1 loses all digits in float32 and can come out below 0.
            return difference.expm1() - difference
        case "straight_through":
            k2 = difference.square() / 2
            return (difference.expm1() - difference).detach() + (k2 - k2.detach())
    raise ValueError(f"algorithm.kl_estimator is {estimator!r}: k1, k2, k3 or straight_through")


def next_kl_coef(coef: float, kl: float, target: float) -> float:
    """The weight of the KL in the next step: Ziegler et al. (1909.08593), section 2.2.

    `coef` is this step's; `kl` what was measured in it and `target` what is wanted, both in nats per token, `target`
    above 0. The weight grows by a tenth of the relative error, which counts as 20 % at most: by at most 2 % a step, up
    or down. A weight of 0 stays 0.
    """
    error = min(max(kl / target - 1, -_LARGEST_ERROR), _LARGEST_ERROR)
    return coef * (1 + _GAIN * error)
