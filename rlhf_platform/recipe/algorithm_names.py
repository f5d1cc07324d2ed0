"""Every name that `algorithm.type` may have."""

from rlhf_platform.recipe.algorithms import RL_ALGORITHMS, AlgorithmConfig
from rlhf_platform.recipe.preferences import OFFLINE_ALGORITHMS

ALGORITHMS: dict[str, type[AlgorithmConfig]] = {**RL_ALGORITHMS, **OFFLINE_ALGORITHMS}

ELSEWHERE = {"sft": "supervised training is the section sft; set sft.steps, and steps=0 for no RL after it"}
"""Names that a person may look for here, and where what they mean is."""
