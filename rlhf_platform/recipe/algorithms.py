"""One dataclass per algorithm: its keys, with the published values as defaults. `algorithm.type` chooses among them.

A key that only another algorithm has is refused, so that nothing stands in a recipe without effect.
"""

from dataclasses import dataclass

from rlhf_platform.recipe.field import key

NORMALIZATIONS = ("token", "sequence", "length")


@dataclass
class AlgorithmConfig:
    """How rewards become a gradient."""

    type: str = key("grpo", choices=("grpo", "dr_grpo", "dapo", "gspo", "cispo"))
    """Chosen by name; all other keys are then its published values."""
    group_size: int = key(8, at_least=2, at_most=1024)
    """Samples per prompt, compared with each other. Papers use 8 to 64; the more, the surer the comparison."""
    kl_coef: float = key(0.0, at_least=0.0, at_most=10.0)
    """Weight of the KL to the frozen warm start in the loss; 0, as published, keeps no reference in memory."""
    importance_cap: float = key(2.0, at_least=1.0, at_most=100.0)
    """Cap of the weight learner/rollout that corrects what the two compute differently (law 6)."""
    epochs: int = key(1, at_least=1, at_most=16)
    """Passes over the samples of a step."""
    minibatches: int = key(1, at_least=1, at_most=64)
    """Optimiser steps per pass."""
    normalization: str = key("token", choices=NORMALIZATIONS)
    """What the loss is a mean over: `token`, all tokens of a minibatch alike; `sequence`, samples alike, each by its
    own length; `length`, samples alike, each divided by `rollout.max_new_tokens`."""


@dataclass
class GRPO(AlgorithmConfig):
    """DeepSeekMath (2402.03300): rewards normalised in the group by mean and spread, PPO's clip, KL in the loss."""

    clip_ratio: float = key(0.2, above=0.0, at_most=1.0)
    """The policy ratio is clipped to [1 - clip_ratio, 1 + clip_ratio]."""
    kl_coef: float = key(0.04, at_least=0.0, at_most=10.0)
    """Weight of the KL to the frozen warm start in the loss; 0.04 is published, 0 keeps no reference in memory."""
    normalization: str = key("sequence", choices=NORMALIZATIONS)
    """What the loss is a mean over: `sequence`, samples alike, each by its own length, as published; `token`, all
    tokens of a minibatch alike; `length`, samples alike, each divided by `rollout.max_new_tokens`."""


@dataclass
class DrGRPO(AlgorithmConfig):
    """Dr. GRPO (2503.20783): GRPO without its two biases, the division by the spread and by each sample's length."""

    type: str = "dr_grpo"
    clip_ratio: float = key(0.2, above=0.0, at_most=1.0)
    """The policy ratio is clipped to [1 - clip_ratio, 1 + clip_ratio]."""
    normalization: str = key("length", choices=NORMALIZATIONS)
    """What the loss is a mean over: `length`, samples alike, each divided by the constant `rollout.max_new_tokens`, as
    published; `token` and `sequence` bring a length bias back."""


@dataclass
class DAPO(AlgorithmConfig):
    """DAPO (2503.14476): a clip range that is wider upwards, a loss over tokens, prompts without spread drawn anew, and
    a penalty for samples about to be cut."""

    type: str = "dapo"
    clip_ratio: float = key(0.2, above=0.0, at_most=1.0)
    """The policy ratio is clipped from below to 1 - clip_ratio."""
    clip_ratio_high: float = key(0.28, above=0.0, at_most=10.0)
    """The policy ratio is clipped from above to 1 + clip_ratio_high: unlikely tokens may grow."""
    max_rounds: int = key(3, at_least=1, at_most=100)
    """Times that a step draws prompts, replacing those whose samples all have the same reward; 1 draws once. What still
    has no spread after the last round stays, and teaches nothing."""
    overlong_share: float = key(0.2, at_least=0.0, at_most=1.0)
    """Last share of `rollout.max_new_tokens` over which the reward falls in a line by 1; published 4,096 of 20,480
    tokens. A sample without an end pays it whole, with a share of 0 too."""


@dataclass
class GSPO(AlgorithmConfig):
    """GSPO (2507.18071): the ratio of the whole sequence, by its length, is clipped, not each token's."""

    type: str = "gspo"
    clip_ratio: float = key(3e-4, above=0.0, at_most=1.0)
    """The sequence ratio is clipped from below to 1 - clip_ratio. Far below the token ratios' 0.2: a mean over tokens
    varies less."""
    clip_ratio_high: float = key(4e-4, above=0.0, at_most=1.0)
    """The sequence ratio is clipped from above to 1 + clip_ratio_high."""
    minibatches: int = key(4, at_least=1, at_most=64)
    """Optimiser steps per pass."""
    normalization: str = key("sequence", choices=("sequence",))
    """The loss is a mean over samples: a sequence has one ratio."""


@dataclass
class CISPO(AlgorithmConfig):
    """CISPO of MiniMax-M1 (2506.13585): the weight is clipped, not the gradient, so that every token keeps learning."""

    type: str = "cispo"
    ratio_cap: float = key(5.0, above=1.0, at_most=100.0)
    """The policy ratio, which only weighs the log-prob's gradient, is capped here; there is no lower bound. The paper
    leaves it open; ScaleRL (2510.13786) finds 4 to 8 alike."""


ALGORITHMS: dict[str, type[AlgorithmConfig]] = {
    "grpo": GRPO,
    "dr_grpo": DrGRPO,
    "dapo": DAPO,
    "gspo": GSPO,
    "cispo": CISPO,
}
"""What `algorithm.type` may name."""

PLANNED = ("ppo", "rloo", "reinforce_pp", "dpo", "ipo", "kto", "sft", "reward_model")
"""Names that this version knows and does not train: refused by name rather than as a misspelling."""
