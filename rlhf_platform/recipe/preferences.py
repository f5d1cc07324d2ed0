"""One dataclass per offline algorithm, which learns from judged answers instead of rewards; as in `algorithms.py`.

They run on TRL's trainers (`rlhf_platform.learner.preference`, `rlhf_platform.learner.reward_model`). `steps` of the
recipe are their optimiser steps, dealt out over the rounds; learning rate, schedule, LoRA and ZeRO are `learner`'s.
"""

from dataclasses import dataclass

from rlhf_platform.recipe.algorithms import AlgorithmConfig
from rlhf_platform.recipe.field import key

SMOOTHING = {"robust": 0.1, "exo_pair": 1e-3, "aot": 0.0, "aot_unpaired": 0.0}
"""The losses of DPO that `label_smoothing` acts on, and what their papers recommend."""


@dataclass
class JudgedConfig(AlgorithmConfig):
    """What all have that learn from judged answers."""

    group_size: int = key(8, at_least=2, at_most=1024)
    """Samples per prompt where the policy makes the pairs (no `data.pairs`): the best and the worst of them, by the
    recipe's rewards, become one. The more, the further they lie apart."""
    batch_size: int = key(64, at_least=1, at_most=65_536)
    """Pairs per optimiser step, over all ranks."""
    pairs_per_round: int | None = key(None, at_least=1)
    """Lines of `data.pairs` that a round learns from, or without it prompts that a round samples; none: all that there
    are, dealt out evenly."""


@dataclass
class PreferenceConfig(JudgedConfig):
    """How judged answers become a gradient for the policy."""

    beta: float = key(0.1, above=0.0, at_most=10.0)
    """Weight of the KL to the reference that the preferences are weighed against."""
    rounds: int = key(1, at_least=1, at_most=1000)
    """Times that pairs are taken and learnt from, never the same twice; without `data.pairs` each round's are made by
    the policy that the round before has left (iterative DPO, 2312.16682)."""
    reference: str = key("moving", choices=("fixed", "moving"))
    """What the policy is held to: `fixed`, the warm start; `moving`, the policy at the start of the round, which allows
    a long way in small parts. With one round they are the same."""
    train_tokens: str = key("all", choices=("all", "text", "audio"))
    """Which tokens of an answer are learnt: `text` leaves codec tokens alone, which keeps preferences on the text from
    breaking the voice (AQAA 2506.07967), `audio` learns nothing else. An end token counts with what stands before
    it."""


@dataclass
class DPO(PreferenceConfig):
    """DPO (2305.18290): of two answers to a prompt the chosen becomes likelier than the rejected, against the
    reference."""

    type: str = "dpo"
    beta: float = key(0.1, above=0.0, at_most=10.0)
    """Weight of the KL to the reference that the preferences are weighed against; published 0.1."""
    loss_type: str = key(
        "sigmoid",
        choices=(
            "sigmoid",
            "sigmoid_norm",
            "hinge",
            "ipo",
            "exo_pair",
            "nca_pair",
            "robust",
            "bco_pair",
            "sppo_hard",
            "aot",
            "aot_unpaired",
            "apo_zero",
            "apo_down",
            "discopop",
        ),
    )
    """`sigmoid`, DPO; `sigmoid_norm`, by the answer's length; `hinge`, SLiC (2305.10425); `ipo` (2310.12036);
    `exo_pair`, EXO (2402.00856); `nca_pair`, NCA (2402.05369); `robust` to wrong labels (2403.00409); `bco_pair`, BCO
    (2404.04656); `sppo_hard`, SPPO (2405.00675); `aot` and `aot_unpaired` (2406.05882), which sort within a
    micro-batch; `apo_zero` and `apo_down` (2408.06266); `discopop` (2406.08414)."""
    label_smoothing: float | None = key(None, at_least=0.0, at_most=0.49)
    """Share of the labels taken to be wrong, by `robust`, `exo_pair`, `aot` and `aot_unpaired` only; none: what their
    papers recommend, 0.1, 0.001, 0 and 0."""
    discopop_tau: float = key(0.05, above=0.0, at_most=100.0)
    """Temperature of `discopop`; published 0.05."""
    sft_coef: float = key(0.0, at_least=0.0, at_most=100.0)
    """Weight of the chosen answers' own likelihood, per token, beside the loss: without it both answers may grow
    unlikely (RPO 2404.19733, which takes 1); 0, as published, has none."""


@dataclass
class IPO(PreferenceConfig):
    """IPO (2310.12036): DPO with a squared loss that stops at a margin, so that sure preferences are not overfitted.
    Log-ratios are means over an answer's tokens, as its authors use them."""

    type: str = "ipo"
    beta: float = key(0.1, above=0.0, at_most=10.0)
    """The paper's tau: chosen and rejected are to lie 1 / (2 beta) apart, in nats per token. The paper leaves it open;
    0.1 is TRL's."""


@dataclass
class KTO(PreferenceConfig):
    """KTO (2402.01306): answers that are good or bad, each by itself; no pairs are needed."""

    type: str = "kto"
    beta: float = key(0.1, above=0.0, at_most=10.0)
    """How soon an answer is good or bad enough; published 0.1."""
    batch_size: int = key(32, at_least=2, at_most=65_536)
    """Answers per optimiser step, over all ranks; published 32. The KL is estimated within each micro-batch, from its
    answers moved on to the next prompt, so that one needs at least two."""
    desirable_weight: float = key(1.0, above=0.0, at_most=1000.0)
    """Factor of the good answers' loss. With more of one kind than of the other, weight times number should be within
    1 to 4/3 of each other (equation 8)."""
    undesirable_weight: float = key(1.0, above=0.0, at_most=1000.0)
    """Factor of the bad answers' loss."""
    loss_type: str = key("kto", choices=("kto", "apo_zero_unpaired"))
    """`kto`, or APO-zero (2408.06266) for single answers, which estimates no KL."""


@dataclass
class RewardModel(JudgedConfig):
    """A Bradley-Terry reward model (1909.08593, 2203.02155): a number for an answer, so that the chosen of a pair has
    the larger. The backbone of the recipe with a head in place of its vocabulary's."""

    type: str = "reward_model"
    margin_coef: float = key(1.0, at_least=0.0, at_most=1000.0)
    """A pair's `margin` times this is what its chosen answer must be ahead by (Llama 2, 2307.09288, equation 2); 0
    leaves margins out. A pair without one has margin 0, which is Bradley-Terry as published."""
    tie_threshold: float = key(0.0, at_least=0.0, at_most=100.0)
    """How far two rewards may lie apart and be taken for equal, in units of the reward: the logarithm of theta in Rao
    and Kupper's model of ties (JASA 62, 1967). With 0.69 equal answers win, lose and tie equally often; 0 allows no
    pair with `tie: true`."""
    center_coef: float = key(0.0, at_least=0.0, at_most=100.0)
    """Weight of the squared sum of a pair's rewards, which keeps them around 0 (2312.09244, which takes 0.01)."""
    label_smoothing: float = key(0.0, at_least=0.0, at_most=0.49)
    """Share of the choices taken to be wrong, so that no pair is worth an ever larger margin: raters err, and clicks
    can fool them. 0, as published, trusts all."""
    heldout_share: float = key(0.1, at_least=0.0, at_most=0.9)
    """Share of the prompts whose pairs are kept out of training to measure the pair accuracy on; 0 measures nothing."""


@dataclass
class MakePairs(AlgorithmConfig):
    """Trains nothing: the policy answers, the recipe's rewards judge, and what they prefer is written as `pairs.jsonl`
    for a reward model or DPO to learn from. `steps` is 0."""

    type: str = "pairs"
    group_size: int = key(8, at_least=2, at_most=1024)
    """Samples per prompt, ranked by their rewards."""
    pairs_per_prompt: int = key(1, at_least=1, at_most=512)
    """Pairs of a prompt, at most: the best with the worst, the second best with the second worst, and so on."""
    margin: float = key(0.0, at_least=0.0, at_most=1e6)
    """Least difference of two rewards for the one to be called better. Step-Audio 1 keeps pairs more than 3 of 5 points
    apart."""
    prompts: int | None = key(None, at_least=1)
    """Prompts of `data.rl_split` that are answered; none: each once."""


OFFLINE_ALGORITHMS: dict[str, type[AlgorithmConfig]] = {
    kind.type: kind for kind in (DPO, IPO, KTO, RewardModel, MakePairs)
}
"""What `algorithm.type` may name of offline training: the rounds of `rlhf_platform.train.rounds`, and what makes pairs
for them."""
