"""What it usually means that a metric is past its limit, and the way out; docs/monitors.md says more."""

from collections.abc import Mapping
from typing import Literal

Side = Literal["above", "below"]

NOT_A_NUMBER = "every reward of the step failed, or the policy has diverged: see reward_failed and grad_norm"

HINTS: Mapping[tuple[str, Side], str] = {
    ("reward", "below"): "what was learnt is lost: lower learner.learning_rate, or raise algorithm.kl_coef",
    ("reward_std", "below"): "rewards hardly differ, so little is learnt: harder prompts, or a reward with more levels",
    ("reward/", "below"): "another term pays for what this one loses: give it more weight, or gate the other by it",
    ("reward_std/", "below"): "samples become alike in it, as prosody does under a CER reward: add a term for its "
    "spread, or stop at an earlier checkpoint",
    ("reward_correlation/", "above"): "both terms say the same, so their weights add up: take one out",
    ("reward_correlation/", "below"): "the terms work against each other: gate one by the other",
    ("reward_failed", "above"): "the reward functions fail: reward_failed/KIND says how",
    ("groups_dropped", "above"): "prompts teach nothing as their rewards fail: reward_failed/KIND says how",
    ("groups_with_spread", "below"): "samples of a prompt are all rewarded alike: harder prompts, or dapo, which "
    "draws again",
    ("sample_wer", "above"): "the policy transcribes worse: lower learner.learning_rate, or weigh accuracy more",
    ("substitution_rate", "above"): "words are misheard or swapped for ones that pay: weigh accuracy more",
    ("deletion_rate", "above"): "leaving words out pays: let the reward count deletions, or gate it by WER",
    ("insertion_rate", "above"): "words are made up: let the reward count insertions, or lower rollout.max_new_tokens",
    ("insertion_deletion_balance", "above"): "words are made up rather than left out: let the reward count insertions",
    ("insertion_deletion_balance", "below"): "words are left out rather than made up: let the reward count deletions",
    ("empty_rate", "above"): "saying nothing pays: a reward without words must be the lowest",
    ("repeated_ngram_rate", "above"): "the policy loops: add a penalty for repeats, or lower rollout.max_new_tokens",
    ("evasive_rate", "above"): "excuses please the judge: gate it by WER, or give it such answers as bad examples",
    ("words_per_second", "above"): "more is said than was spoken: let the reward count insertions",
    ("words_per_second", "below"): "less is said than was spoken: let the reward count deletions",
    ("completion_tokens", "above"): "long completions are what the reward pays for: bound the length in the reward",
    ("completion_tokens", "below"): "short completions are what the reward pays for: gate it by WER",
    ("completion_tokens_std", "below"): "all samples become equally long: the reward pays for one length",
    ("cut", "above"): "the policy no longer ends by itself: penalise cut samples, or raise rollout.max_new_tokens",
    ("kl", "above"): "the policy runs away from its start: raise algorithm.kl_coef, or lower learner.learning_rate",
    ("entropy", "below"): "the policy has settled, and samples are alike: lower learner.learning_rate, or add a KL",
    ("entropy", "above"): "the policy falls apart: lower learner.learning_rate, or raise algorithm.kl_coef",
    ("grad_norm", "above"): "training is unstable: lower learner.learning_rate or learner.max_grad_norm",
    ("logprob_diff_max", "above"): "rollout and learner do not compute the same policy; in bfloat16 rounding does it, "
    "in float32 nothing should",
    ("importance_weight", "below"): "rollout samples another policy than the one that learns: fewer updates per step, "
    "or float32",
    ("heldout_wer", "above"): "held-out clips get worse: go back to a checkpoint, and train on more varied prompts",
    ("heldout_gap", "above"): "the reward grows and held-out accuracy does not: listen to samples for a hack, and "
    "measure with another reward than the one that trains",
}
"""By metric, or by the prefix of those of a term, and by the side of the limit."""


def hint(metric: str, side: Side) -> str:
    """The likely meaning; "" for what speaks for itself."""
    prefix, slash, _ = metric.partition("/")
    return HINTS.get((metric, side)) or HINTS.get((prefix + slash, side), "")
