"""Rewards that know how sure the policy was: confidence in an error, and the expected error of a group."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from rewards.asr.errors import word_error_rate
from rewards.types import RewardInput
from rlhf_platform.data.text import PLAIN


def confidence_reward(sample: RewardInput, *, unsure: float = 0.5, normalizer: str = PLAIN) -> float:
    """1 - min(WER, 1) * (u + (1 - u) * c), in [0, 1]: an error costs more, the surer the policy was of its text.

    c = exp(mean log-prob of the tokens), in [0, 1]; u = `unsure`, in [0, 1], the share of the cost that is left at
    c = 0. Ours. Without error it is 1 whatever the confidence, so being unsure gains nothing by itself. Raises
    `ValueError` without log-probs, and for a `unsure` out of range.
    """
    if not 0.0 <= unsure <= 1.0:
        raise ValueError(f"unsure {unsure:g}: at least 0 and at most 1 is needed")
    confidence = math.exp(min(_log_prob(sample) / len(sample.logprobs), 0.0))
    return 1.0 - min(word_error_rate(sample, normalizer), 1.0) * (unsure + (1.0 - unsure) * confidence)


def mwer_reward(samples: list[RewardInput], *, normalizer: str = PLAIN) -> list[float]:
    """Rewards whose policy gradient descends the expected WER of each group (MWER, 1712.01818).

    The samples of one `prompt_id` in the call are the group: G samples, among them distinct texts y with multiplicity
    n(y) and W(y) = min(WER, 1). With P(y) = exp(sum of log-probs), renormalised over the distinct texts,

        r = -G / n(y) * P(y) * (W(y) - sum over y' of P(y') W(y')),   in [-G / 4, G / 4].

    The mean over the group of r * grad log P is then -grad of the expected WER, and r sums to 0, so subtracting the
    group's mean changes nothing; dividing by its spread rescales it. A lone sample, or a group of one text, gets 0.
    Probabilities of whole texts differ by orders of magnitude, so one text carries most of a group. Raises
    `ValueError` without log-probs, for all of the batch.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for place, sample in enumerate(samples):
        groups[sample.prompt_id].append(place)
    rewards = [0.0] * len(samples)
    for places in groups.values():
        for place, reward in zip(places, _mwer([samples[i] for i in places], normalizer), strict=True):
            rewards[place] = reward
    return rewards


def _mwer(group: Sequence[RewardInput], normalizer: str) -> list[float]:
    keys = [sample.tokens or sample.text for sample in group]
    distinct = dict(zip(keys, group, strict=True))
    log_probs = np.array([_log_prob(sample) for sample in distinct.values()])
    errors = np.array([min(word_error_rate(sample, normalizer), 1.0) for sample in distinct.values()])
    probs = np.exp(log_probs - log_probs.max())
    probs /= probs.sum()
    gains = -len(group) * probs * (errors - probs @ errors)
    gain_of, copies = dict(zip(distinct, gains.tolist(), strict=True)), Counter(keys)
    return [gain_of[key] / copies[key] for key in keys]


def _log_prob(sample: RewardInput) -> float:
    """Of the whole completion, nats."""
    if not sample.logprobs:
        raise ValueError(f"sample of {sample.prompt_id!r} has no logprobs, which this reward weighs by")
    total = sum(sample.logprobs)
    if not math.isfinite(total):
        raise ValueError(f"sample of {sample.prompt_id!r} has a log-prob that is not finite")
    return total
