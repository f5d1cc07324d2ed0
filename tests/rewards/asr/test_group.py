"""Confidence by hand, and MWER against a gradient by finite differences."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.asr.group import confidence_reward, mwer_reward
from rewards.types import RewardInput

REFERENCE = "alpha bravo charlie delta"
TEXTS = ["alpha bravo charlie delta", "alpha bravo", "alpha x y delta", "x", "alpha bravo charlie echo"]
WER = [0.0, 0.5, 0.5, 1.0, 0.25]


def sample(text: str, *logprobs: float, prompt_id: str = "p") -> RewardInput:
    return RewardInput(prompt_id, text, logprobs=logprobs, reference=REFERENCE)


def test_confidence_by_hand() -> None:
    sure, half = (0.0, 0.0), (math.log(0.5), math.log(0.5))
    assert confidence_reward(sample(TEXTS[0], *half)) == 1.0
    assert confidence_reward(sample(TEXTS[1], *sure)) == 0.5
    assert confidence_reward(sample(TEXTS[1], *half)) == pytest.approx(1 - 0.5 * 0.75)
    assert confidence_reward(sample(TEXTS[1], *half), unsure=0.0) == pytest.approx(1 - 0.5 * 0.5)
    assert confidence_reward(sample(TEXTS[1], *half), unsure=1.0) == 0.5
    assert confidence_reward(sample("x " * 40, *sure)) == 0.0
    with pytest.raises(ValueError, match="unsure 2: at least 0 and at most 1"):
        confidence_reward(sample("x", *sure), unsure=2.0)


def test_mwer_by_hand() -> None:
    group = [sample(TEXTS[0], math.log(0.3)), sample(TEXTS[1], math.log(0.1), math.log(0.5))]
    # P is 6/7 and 1/7 of the group, the expected WER 1/14.
    assert mwer_reward(group) == pytest.approx([2 * 6 / 7 * 1 / 14, -2 * 1 / 7 * 6 / 14])


@pytest.mark.parametrize("drawn", [[0, 1, 2], [0, 1, 2, 3, 4], [4, 4, 1, 0, 4], [3, 3], [2]])
def test_mwer_rewards_point_down_the_expected_wer(drawn: list[int]) -> None:
    logits = np.array([0.3, -1.0, 0.8, 0.1, -0.4])  # of a policy over the five texts

    def log_probs(logits: np.ndarray) -> np.ndarray:
        return logits - np.log(np.exp(logits).sum())

    def expected_wer(logits: np.ndarray) -> float:
        probs = np.exp(log_probs(logits)[sorted(set(drawn))])
        return float(probs @ np.array(WER)[sorted(set(drawn))] / probs.sum())

    nudges = np.eye(5) * 1e-5
    slope = np.array([(expected_wer(logits + n) - expected_wer(logits - n)) / 2e-5 for n in nudges])
    rewards = mwer_reward([sample(TEXTS[i], log_probs(logits)[i]) for i in drawn])
    jacobian = np.array([(log_probs(logits + n) - log_probs(logits - n)) / 2e-5 for n in nudges])
    policy_gradient = jacobian[:, drawn] @ np.array(rewards) / len(drawn)
    assert policy_gradient == pytest.approx(-slope, abs=1e-8)


def test_groups_are_kept_apart_and_in_order() -> None:
    first = [sample(text, -1.0 - i) for i, text in enumerate(TEXTS[:2])]
    second = [sample(text, -0.5, -i, prompt_id="q") for i, text in enumerate(TEXTS[2:4])]
    mixed = mwer_reward([first[0], second[0], first[1], second[1]])
    assert mixed[0::2] == mwer_reward(first)
    assert mixed[1::2] == mwer_reward(second)
    assert mwer_reward([]) == []


@given(st.lists(st.tuples(st.sampled_from(TEXTS), st.floats(-2000, 0)), min_size=1, max_size=8))
def test_mwer_rewards_are_bounded_and_add_up_to_nothing(drawn: list[tuple[str, float]]) -> None:
    rewards = mwer_reward([sample(text, logprob) for text, logprob in drawn])
    assert sum(rewards) == pytest.approx(0.0, abs=1e-9)
    assert all(abs(reward) <= len(drawn) / 4 + 1e-9 for reward in rewards)


def test_without_log_probs_there_is_no_answer() -> None:
    with pytest.raises(ValueError, match="sample of 'p' has no logprobs"):
        mwer_reward([sample("x", -1.0), sample("y")])
    with pytest.raises(ValueError, match="sample of 'p' has no logprobs"):
        confidence_reward(sample("x"))
    with pytest.raises(ValueError, match="a log-prob that is not finite"):
        confidence_reward(sample("x", float("-inf")))
