"""The coefficients of KL and entropy from step to step, against the papers' rules by hand."""

import pytest

from rlhf_platform.learner.objective import Coefficients
from rlhf_platform.learner.steering import Steering, has_entropy_bonus
from rlhf_platform.recipe.algorithms import DAPO, GRPO, PPO, OnlineDPO


def measured(kl: float = 0.0, entropy: float = 0.0) -> dict[str, float]:
    return {"kl": kl, "entropy": entropy}


def test_the_weight_of_the_kl_follows_its_target() -> None:
    """1909.08593, section 2.2: by a tenth of the relative error, which counts as 20 % at most."""
    steering = Steering(PPO(kl_coef=0.1, kl_target=0.5))
    weights = []
    for kl in (5.0, 0.55, 0.5, 0.0):
        assert steering.coefficients.kl == pytest.approx(steering.step(measured(kl))["kl_coef"])
        weights.append(steering.coefficients.kl)
    assert weights == pytest.approx([0.1 * 1.02, 0.1 * 1.02 * 1.01, 0.1 * 1.02 * 1.01, 0.1 * 1.02 * 1.01 * 0.98])


def test_the_entropy_bonus_rises_below_its_target_falls_above_and_acts_below_alone() -> None:
    """2505.22312, section 4: steps of 0.005."""
    steering = Steering(GRPO(entropy_coef=0.01, entropy_target=1.0))
    said = []
    for entropy in (0.5, 0.9, 1.5, 0.8):
        said.append(steering.step(measured(entropy=entropy))["entropy_coef"])
    # What weighed in each step: the start, raised twice; off after the third, whose entropy was above.
    assert said == pytest.approx([0.01, 0.015, 0.02, 0.0])
    assert steering.coefficients.entropy == pytest.approx(0.02)


def test_without_a_target_nothing_moves() -> None:
    steering = Steering(DAPO(kl_coef=0.1, entropy_coef=0.02))
    assert steering.step(measured(5.0, 0.1)) == {"entropy_coef": 0.02}
    assert steering.coefficients == Coefficients(0.1, 0.02)
    assert Steering(DAPO()).step(measured(5.0)) == {}


def test_the_beta_of_online_dpo_stays() -> None:
    steering = Steering(OnlineDPO(kl_coef=0.3))
    assert steering.step(measured(5.0)) == {}
    assert steering.coefficients == Coefficients(0.3, 0.0)


def test_an_entropy_needs_a_gradient_where_it_is_or_may_be_learnt_from() -> None:
    assert not has_entropy_bonus(GRPO())
    assert has_entropy_bonus(GRPO(entropy_coef=0.1))
    assert has_entropy_bonus(GRPO(entropy_target=1.0))
    assert not has_entropy_bonus(OnlineDPO())


def test_what_is_steered_goes_on_from_its_state() -> None:
    algorithm = PPO(kl_coef=0.1, kl_target=0.5, entropy_coef=0.01, entropy_target=1.0)
    one = Steering(algorithm)
    one.step(measured(5.0, 1.5))
    state = one.state()
    other = Steering(algorithm)
    assert other.coefficients != one.coefficients
    other.load_state(state)
    for steering in (one, other):
        assert steering.coefficients == Coefficients(pytest.approx(0.102), 0.0)
        steering.step(measured(0.5, 0.5))
    assert other.coefficients == one.coefficients == Coefficients(pytest.approx(0.102), pytest.approx(0.01))
