"""KL divergence from the policy to the frozen reference, estimated on sampled tokens."""

from torch import Tensor


def kl_to_reference(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """The k3 estimator per token, (B, T), in nats: exp(d) - d - 1 with d = reference - policy.

    Unbiased, and never below 0 (Schulman 2020, "Approximating KL divergence"; GRPO 2402.03300, equation 4).
    """
    difference = reference_logprobs - logprobs
    # expm1: near 0, where a policy starts, exp(d) - 1 loses all digits in float32 and can come out below 0.
    return difference.expm1() - difference
