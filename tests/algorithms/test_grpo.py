"""Group-relative advantages against numpy in float64 on the scored samples alone."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_platform.algorithms.grpo import group_advantages

GROUPS = st.integers(1, 9).flatmap(
    lambda size: st.lists(
        st.tuples(
            # Eighths: shifting and scaling them by powers of two below rounds nothing.
            st.lists(st.integers(-400, 400).map(lambda n: n / 8), min_size=size, max_size=size),
            st.lists(st.booleans(), min_size=size, max_size=size),
        ),
        min_size=1,
        max_size=4,
    )
)
Group = list[tuple[list[float], list[bool]]]


def tensors(groups: Group) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([rewards for rewards, _ in groups]), torch.tensor([scored for _, scored in groups])


def by_numpy(rewards: torch.Tensor, scored: torch.Tensor) -> np.ndarray:
    """Each group's scored rewards, standardised as if the failed ones had not been there."""
    expected = np.zeros(rewards.shape)
    for row in range(len(rewards)):
        kept = scored[row].numpy()
        values = rewards[row].double().numpy()[kept]
        if len(values) > 1 and len(set(values)) > 1:
            expected[row, kept] = (values - values.mean()) / values.std(ddof=1)
    return expected


def test_a_group_by_hand() -> None:
    # Mean 2, squared deviations 4 + 0 + 4 over n - 1 = 2: standard deviation 2.
    rewards = torch.tensor([[0.0, 2.0, 4.0], [1.0, 1.0, 1.0]])
    advantages = group_advantages(rewards, torch.ones(2, 3, dtype=torch.bool))
    torch.testing.assert_close(advantages, torch.tensor([[-1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]))
    assert advantages.dtype == rewards.dtype


def test_a_failed_sample_counts_neither_in_the_mean_nor_in_the_spread() -> None:
    rewards = torch.tensor([[0.0, 2.0, 1000.0, 4.0], [0.0, float("nan"), float("inf"), 2.0]])
    scored = torch.tensor([[True, True, False, True], [True, False, False, True]])
    expected = torch.tensor([[-1.0, 0.0, 0.0, 1.0], [-(0.5**0.5), 0.0, 0.0, 0.5**0.5]])
    torch.testing.assert_close(group_advantages(rewards, scored), expected)


@given(GROUPS)
def test_the_scored_samples_are_treated_as_if_the_others_had_not_been_there(groups: Group) -> None:
    rewards, scored = tensors(groups)
    advantages = group_advantages(rewards, scored)
    np.testing.assert_allclose(advantages.numpy(), by_numpy(rewards, scored), atol=1e-6)
    elsewhere = torch.where(scored, rewards, torch.tensor(float("nan")))
    torch.testing.assert_close(group_advantages(elsewhere, scored), advantages, rtol=0, atol=0)


@given(GROUPS)
def test_advantages_sum_to_zero_over_the_scored_samples_and_have_unit_spread(groups: Group) -> None:
    rewards, scored = tensors(groups)
    advantages = group_advantages(rewards, scored)
    assert torch.isfinite(advantages).all()
    assert (advantages[~scored] == 0).all()
    torch.testing.assert_close(advantages.sum(-1), torch.zeros(len(groups)), rtol=0, atol=1e-5)
    count = scored.sum(-1)
    spread = advantages.square().sum(-1) / (count - 1).clamp(min=1)
    assert all(abs(value - 1) < 1e-5 or value == 0 for value in spread.tolist())


@given(GROUPS, st.integers(-64, 64), st.integers(-8, 8))
def test_shift_and_positive_scale_of_rewards_change_nothing(groups: Group, shift: int, power: int) -> None:
    rewards, scored = tensors(groups)
    moved = group_advantages((rewards + shift) * 2.0**power, scored)
    torch.testing.assert_close(moved, group_advantages(rewards, scored), rtol=0, atol=1e-6)


@given(GROUPS, st.randoms(use_true_random=False))
def test_reordering_a_group_reorders_its_advantages(groups: Group, random: object) -> None:
    rewards, scored = tensors(groups)
    order = list(range(rewards.shape[1]))
    random.shuffle(order)
    moved = group_advantages(rewards[:, order], scored[:, order])
    torch.testing.assert_close(moved, group_advantages(rewards, scored)[:, order], rtol=0, atol=1e-6)


@given(GROUPS)
def test_groups_do_not_see_each_other(groups: Group) -> None:
    alone = torch.cat([group_advantages(*tensors([group])) for group in groups])
    torch.testing.assert_close(group_advantages(*tensors(groups)), alone, rtol=0, atol=0)


@given(st.floats(-1e6, 1e6, width=32), st.integers(2, 1024))
def test_equal_rewards_teach_nothing_at_any_size(reward: float, size: int) -> None:
    advantages = group_advantages(torch.full((1, size), reward), torch.ones(1, size, dtype=torch.bool))
    assert (advantages == 0).all()


def test_rewards_that_differ_by_rounding_teach_nothing() -> None:
    for value in (1e-3, 0.3, 1.0, 1000.1):
        rewards = torch.tensor([[value, value, value, value]])
        rewards[0, 0] = torch.nextafter(rewards[0, 0], torch.tensor(torch.inf))
        assert (group_advantages(rewards, torch.ones(1, 4, dtype=torch.bool)) == 0).all()


def test_terms_that_cancel_up_to_rounding_teach_nothing() -> None:
    # 0.1 + 0.2 - 0.3 is 5.6e-17, which beside zeros would be a spread of full size.
    rewards = torch.tensor([[0.1 + 0.2 - 0.3, 0.0, 0.0, 0.0]])
    assert rewards[0, 0] != 0
    assert (group_advantages(rewards, torch.ones(1, 4, dtype=torch.bool)) == 0).all()
