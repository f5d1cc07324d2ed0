"""KL divergence from the policy to the frozen reference, estimated on sampled tokens."""

from torch import Tensor


def kl_to_reference(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """The k3 estimator per token, (B, T), in nats: exp(d) - d - 1 with d = reference - policy.

    Unbiased, and never below 0 (Schulman 2020, "Approximating KL divergence"; GRPO 2402.03300, equation 4).
    """
    difference = reference_logprobs - logprobs
    return difference.exp() - difference - 1
