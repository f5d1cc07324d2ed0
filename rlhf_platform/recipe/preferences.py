"""One dataclass per offline algorithm, which learns from judged answers rather than from rewards; as in `algorithms.py`.

They run on TRL's trainers (`rlhf_platform.learner.preference`, `rlhf_platform.learner.reward_model`).
"""

from dataclasses import dataclass

from rlhf_platform.recipe.algorithms import AlgorithmConfig
from rlhf_platform.recipe.field import key


@dataclass
class PreferenceConfig(AlgorithmConfig):
    """How judged answers become a gradient."""


@dataclass
class DPO(PreferenceConfig):
    """DPO (2305.18290): of two answers to a prompt the chosen becomes likelier than the rejected, against the
    reference."""

    type: str = "dpo"
    beta: float = key(0.1, above=0.0, at_most=10.0)
    """Weight of the KL to the reference that the preferences are weighed against; published 0.1."""


OFFLINE_ALGORITHMS: dict[str, type[AlgorithmConfig]] = {kind.type: kind for kind in (DPO,)}
"""What `algorithm.type` may name of offline training: the rounds of `rlhf_platform.train.rounds`."""
