"""One dataclass per RL algorithm: its keys, with the published values as defaults. `algorithm.type` chooses among them.

A key that only another algorithm has is refused, so that nothing stands in a recipe without effect. The offline
algorithms have a file of their own, `recipe/preferences.py`.
"""

from dataclasses import dataclass

from rlhf_platform.recipe.field import key

NORMALIZATIONS = ("token", "sequence", "length")
KL_ESTIMATORS = ("k1", "k2", "k3", "straight_through")


@dataclass
class AlgorithmConfig:
    """What all algorithms have."""

    type: str = "grpo"
    """Chosen by name; all other keys are then its published values."""
    group_size: int = key(8, at_least=2, at_most=1024)
    """Samples per prompt, compared with each other. Papers use 8 to 64; the more, the surer the comparison."""


@dataclass
class OnlineConfig(AlgorithmConfig):
    """What algorithms have that learn from their own samples."""

    kl_coef: float = key(0.0, at_least=0.0, at_most=10.0)
    """Weight of the KL to the reference, the warm start; 0, as published, keeps no reference in memory."""
    reference_every: int = key(0, at_least=0)
    """RL steps after which the reference becomes the policy of that moment, so that the KL bounds the pace and not the
    way; 0 keeps the warm start."""
    epochs: int = key(1, at_least=1, at_most=16)
    """Passes over the samples of a step."""
    minibatches: int = key(1, at_least=1, at_most=64)
    """Optimiser steps per pass."""
    normalization: str = key("token", choices=NORMALIZATIONS)
    """What the loss is a mean over: `token`, all tokens of a minibatch alike; `sequence`, samples alike, each by its
    own length; `length`, samples alike, each divided by `rollout.max_new_tokens`."""
    train_tokens: str = key("all", choices=("all", "text", "audio"))
    """Which tokens of a completion are learnt: `text` leaves codec tokens alone, which keeps a text reward from
    breaking the voice (AQAA 2506.07967), `audio` learns nothing else. An end token goes with what it ends."""
    train_turns: str = key("all", choices=("all", "last"))
    """Which turns of a completion with several are learnt; `last`: the one that the reward is of."""


@dataclass
class RLConfig(OnlineConfig):
    """How rewards become a policy gradient."""

    kl_in: str = key("loss", choices=("loss", "reward"))
    """Where the KL is paid: in the `loss`, beside the policy's, or in the `reward` of each token, so that the advantage
    knows of it."""
    kl_estimator: str = key("k3", choices=KL_ESTIMATORS)
    """How it is estimated from sampled tokens (Schulman 2020): `k1`, the log-ratio, unbiased and noisy; `k2`, half its
    square; `k3`, unbiased and never below 0; `straight_through`, the value of k3 with the gradient of k2, which as a
    loss is the KL's own gradient."""
    kl_target: float | None = key(None, above=0.0, at_most=1000.0)
    """KL per token, in nats, that `kl_coef` is steered towards from its start value (1909.08593, section 2.2); none:
    `kl_coef` stays."""
    entropy_coef: float = key(0.0, at_least=0.0, at_most=1.0)
    """Weight of an entropy bonus in the loss, which keeps a policy from growing sure too early; 0 has none."""
    entropy_target: float | None = key(None, above=0.0, at_most=20.0)
    """Entropy per token, in nats, below which the bonus acts; `entropy_coef` is then raised while the entropy is below
    and lowered while it is above (Skywork-OR1 2505.22312, section 4). None: the bonus always acts."""
    importance: str = key("token", choices=("token", "sequence", "token_mask", "sequence_mask"))
    """What corrects the difference of rollout's log-probs from the learner's (law 6): the weight learner/rollout per
    `token` or of the whole `sequence`, capped; or `token_mask` and `sequence_mask`, which leave out what is outside
    [1 / importance_cap, importance_cap]."""
    importance_cap: float = key(2.0, at_least=1.0, at_most=100.0)
    """Cap of that weight, which bounds the variance."""


@dataclass
class GRPO(RLConfig):
    """DeepSeekMath (2402.03300): rewards normalised in the group by mean and spread, PPO's clip, KL in the loss."""

    clip_ratio: float = key(0.2, above=0.0, at_most=1.0)
    """The policy ratio is clipped to [1 - clip_ratio, 1 + clip_ratio]."""
    kl_coef: float = key(0.04, at_least=0.0, at_most=10.0)
    """Weight of the KL to the reference, the warm start; 0.04 is published, 0 keeps no reference in memory."""
    normalization: str = key("sequence", choices=NORMALIZATIONS)
    """What the loss is a mean over: `sequence`, samples alike, each by its own length, as published; `token`, all
    tokens of a minibatch alike; `length`, samples alike, each divided by `rollout.max_new_tokens`."""


@dataclass
class DrGRPO(RLConfig):
    """Dr. GRPO (2503.20783): GRPO without its two biases, the division by the spread and by each sample's length."""

    type: str = "dr_grpo"
    clip_ratio: float = key(0.2, above=0.0, at_most=1.0)
    """The policy ratio is clipped to [1 - clip_ratio, 1 + clip_ratio]."""
    normalization: str = key("length", choices=NORMALIZATIONS)
    """What the loss is a mean over: `length`, samples alike, each divided by the constant `rollout.max_new_tokens`, as
    published; `token` and `sequence` bring a length bias back."""


@dataclass
class DAPO(RLConfig):
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
class GSPO(RLConfig):
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
class CISPO(RLConfig):
    """CISPO of MiniMax-M1 (2506.13585): the weight is clipped, not the gradient, so that every token keeps learning."""

    type: str = "cispo"
    ratio_cap: float = key(5.0, above=1.0, at_most=100.0)
    """The policy ratio, which only weighs the log-prob's gradient, is capped here; there is no lower bound. The paper
    leaves it open; ScaleRL (2510.13786) finds 4 to 8 alike."""


@dataclass
class GDPO(GRPO):
    """GDPO (2601.05242): several rewards, each normalised in the group before they are summed by weight, and the sum
    normalised over the batch; else GRPO. Without it rewards of different spread drown each other."""

    type: str = "gdpo"


@dataclass
class RLOO(RLConfig):
    """RLOO (2402.14740): REINFORCE on whole samples, each against the mean of the others of its prompt, with the KL in
    the reward."""

    type: str = "rloo"
    group_size: int = key(4, at_least=2, at_most=1024)
    """Samples per prompt, each compared with the mean of the others; published 2 and 4."""
    clip_ratio: float = key(0.2, above=0.0, at_most=1.0)
    """The whole sample's ratio is clipped to [1 - clip_ratio, 1 + clip_ratio]; acts with `minibatches` or `epochs`
    above 1 only, the paper has neither."""
    kl_coef: float = key(0.03, at_least=0.0, at_most=10.0)
    """Weight of the KL to the reference, the warm start; 0.03 is published, 0 keeps no reference in memory."""
    kl_in: str = key("reward", choices=("reward", "loss"))
    """Where the KL is paid: in the `reward` of the whole sample, as published, or in the `loss`."""
    kl_estimator: str = key("k1", choices=KL_ESTIMATORS)
    """How the KL is estimated from sampled tokens (Schulman 2020); published `k1`, the log-ratio."""
    normalization: str = key("sequence", choices=("sequence",))
    """The loss is a mean over samples: a sample has one ratio."""


@dataclass
class ReinforcePP(RLConfig):
    """REINFORCE++ (2501.03262): no critic and no group; the KL is in each token's reward, and what is to come from a
    token on is normalised over the whole batch."""

    type: str = "reinforce_pp"
    group_size: int = key(1, at_least=1, at_most=1024)
    """Samples per prompt; they are not compared with each other, so 1 brings most prompts into a step."""
    clip_ratio: float = key(0.2, above=0.0, at_most=1.0)
    """The policy ratio is clipped to [1 - clip_ratio, 1 + clip_ratio]."""
    kl_coef: float = key(0.01, at_least=0.0, at_most=10.0)
    """Weight of the KL to the reference, the warm start; 0.01 as in OpenRLHF, the paper's code, 0 keeps no reference in
    memory."""
    kl_in: str = key("reward", choices=("reward", "loss"))
    """Where the KL is paid: in the `reward` of each token, as published, or in the `loss`."""
    kl_estimator: str = key("k1", choices=KL_ESTIMATORS)
    """How the KL is estimated from sampled tokens (Schulman 2020); published `k1`, the log-ratio."""
    gamma: float = key(1.0, above=0.0, at_most=1.0)
    """Discount per token of what is to come; published 1."""


@dataclass
class PPO(RLConfig):
    """PPO (1707.06347) as it aligns language models (2203.02155): a critic says what each token's prefix is worth, and
    generalised advantage estimation (1506.02438) what the token added."""

    type: str = "ppo"
    group_size: int = key(1, at_least=1, at_most=1024)
    """Samples per prompt; the critic needs no group, so 1 brings most prompts into a step."""
    clip_ratio: float = key(0.2, above=0.0, at_most=1.0)
    """The policy ratio is clipped to [1 - clip_ratio, 1 + clip_ratio]."""
    dual_clip: float | None = key(None, above=1.0, at_most=100.0)
    """A bad token's loss is bounded at dual_clip times its advantage, however far its ratio has run (1912.09729, which
    takes 3); none: unbounded, as published first."""
    kl_coef: float = key(0.02, at_least=0.0, at_most=10.0)
    """Weight of the KL to the reference, the warm start; 0.02 is InstructGPT's, 0.05 Step-Audio's, 0 keeps no reference
    in memory."""
    kl_in: str = key("reward", choices=("reward", "loss"))
    """Where the KL is paid: in the `reward` of each token, as published, or in the `loss`."""
    kl_estimator: str = key("k1", choices=KL_ESTIMATORS)
    """How the KL is estimated from sampled tokens (Schulman 2020); published `k1`, the log-ratio."""
    minibatches: int = key(8, at_least=1, at_most=64)
    """Optimiser steps per pass, of the policy and of the critic; published 8, 512 samples by 64."""
    gamma: float = key(1.0, above=0.0, at_most=1.0)
    """Discount per token; published 1: a transcript's reward comes at its end."""
    gae_lambda: float = key(0.95, at_least=0.0, at_most=1.0)
    """How far advantages trust rewards rather than the critic: 1 the rewards alone, 0 the critic's next value."""
    critic: str = key("copy", choices=("copy", "trunk"))
    """What carries the value head: a `copy` of the warm start that learns along, as published, or the frozen `trunk`
    of the reference, where the head alone learns and the copy's memory is saved."""
    critic_learning_rate: float = key(9e-6, above=0.0, at_most=1.0)
    """Constant; 9e-6 is InstructGPT's, for a full-size copy. A head alone, or a tiny copy, takes about 1e-3."""
    critic_warmup: int = key(0, at_least=0)
    """RL steps at the start during which the critic alone learns: advantages of a critic that knows nothing stir the
    policy up. Step-Audio takes 80."""
    value_clip: float | None = key(0.2, above=0.0, at_most=100.0)
    """A value may move by this much from what it was before the step's updates without a larger loss; published 0.2,
    in units of the reward; none: not clipped."""


@dataclass
class OnlineDPO(OnlineConfig):
    """Online DPO (2402.04792): the best and the worst sample of a prompt, by the reward, are a pair; DPO's loss
    (2305.18290) prefers the one to the other, against the reference."""

    type: str = "online_dpo"
    group_size: int = key(2, at_least=2, at_most=1024)
    """Samples per prompt, of which the best and the worst become a pair; published 2. A prompt whose rewards are all
    equal has none."""
    kl_coef: float = key(0.1, above=0.0, at_most=10.0)
    """DPO's beta: the weight of the KL to the reference that the preferences are weighed against; published 0.1."""
    loss_type: str = key("sigmoid", choices=("sigmoid", "hinge", "ipo"))
    """`sigmoid`, DPO; `hinge`, SLiC (2305.10425); `ipo`, which stops at a margin (2310.12036)."""
    normalization: str = key("sequence", choices=("sequence",))
    """The loss is a mean over pairs."""


RL_ALGORITHMS: dict[str, type[OnlineConfig]] = {
    kind.type: kind for kind in (GRPO, DrGRPO, DAPO, GSPO, CISPO, GDPO, RLOO, ReinforcePP, PPO, OnlineDPO)
}
"""What `algorithm.type` may name of RL: the loop of `rlhf_platform.train.loop`."""
