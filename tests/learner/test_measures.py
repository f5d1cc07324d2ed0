"""The numbers of a step: sums that add up over micro-batches and ranks, and what they are by hand."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from rlhf_platform.learner import measures as module
from rlhf_platform.learner.measures import Measures, mismatch
from rlhf_platform.learner.micro_batches import MicroBatch
from rlhf_platform.recipe.algorithms import GRPO, OnlineDPO


@pytest.fixture(autouse=True)
def one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sum over one rank is what is summed."""
    monkeypatch.setattr(module, "over_ranks", lambda value, operation=None: value)


def micro_of(rows: slice = slice(None)) -> tuple[MicroBatch, dict[str, Tensor]]:
    """Some rows of a batch of six, and what the learner has found in them."""
    generator = torch.Generator().manual_seed(4)

    def column() -> Tensor:
        return torch.randn(6, 5, generator=generator)[rows]

    sampled = (torch.rand(6, 5, generator=generator) < 0.8).float()[rows]
    mask = sampled * (torch.rand(6, 5, generator=generator) < 0.8).float()[rows]
    columns: dict[str, Any] = {name: column() for name in ("advantages", "behaviour", "old", "values", "returns")}
    batch: Any = SimpleNamespace(attention_mask=(torch.rand(6, 9, generator=generator) < 0.7).long()[rows])
    found = {name: column() for name in ("kl", "entropy", "value_loss")} | {
        "clipped": column() > 0.5,
        "value_clipped": column() > 0.5,
    }
    return MicroBatch([], batch, None, mask, sampled, **columns, reference=None), found


def add(measures: Measures, micro: MicroBatch, found: dict[str, Tensor]) -> None:
    measures.fit(micro)
    loss = (found["kl"] * micro.mask).sum()
    measures.policy(micro, loss, found["kl"], found["clipped"], found["entropy"])
    measures.critic(micro, found["value_loss"], found["value_clipped"])


def of(parts: list[slice]) -> Measures:
    measures = Measures()
    for rows in parts:
        add(measures, *micro_of(rows))
    measures.begin_update()
    measures.gradient("grad_norm", 2.0)
    measures.gradient("critic_grad_norm", 0.5)
    return measures


def test_micro_batches_add_up() -> None:
    whole = of([slice(None)]).metrics()
    assert of([slice(0, 2), slice(2, 3), slice(3, 6)]).metrics() == pytest.approx(whole, rel=1e-6)
    assert whole.keys() >= {"kl", "clip_fraction", "entropy", "value_loss", "explained_variance", "padding_share"}


def test_ranks_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = of([slice(None)]).metrics()
    sums: list[Tensor] = []
    plain: Callable[..., Tensor] = lambda value, operation=None: sums.append(value) or value  # noqa: E731
    monkeypatch.setattr(module, "over_ranks", plain)
    of([slice(4, 6)]).metrics()
    monkeypatch.setattr(module, "over_ranks", lambda value, operation=None: value + sums[0])
    assert of([slice(0, 4)]).metrics() == pytest.approx(whole, rel=1e-6)


def by_hand() -> tuple[MicroBatch, dict[str, Tensor]]:
    """Two samples of two tokens and of one; the last place is padding, and its numbers must not count."""
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    batch: Any = SimpleNamespace(attention_mask=torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]]))
    values, returns = torch.tensor([[1.0, 2.0], [3.0, 99.0]]), torch.tensor([[1.0, 3.0], [5.0, -99.0]])
    old, behaviour = torch.tensor([[-1.0, -1.0], [-1.0, 50.0]]), torch.tensor([[-1.0, -1.5], [-0.25, -50.0]])
    micro = MicroBatch([], batch, None, mask, mask, mask, behaviour, old, None, values, returns)
    found = {
        "kl": torch.tensor([[0.5, 1.0], [0.0, 9.0]]),
        "entropy": torch.tensor([[1.0, 2.0], [3.0, 9.0]]),
        "clipped": torch.tensor([[True, False], [False, True]]),
        "value_loss": torch.tensor([[0.25, 0.5], [0.75, 9.0]]),
        "value_clipped": torch.tensor([[True, True], [False, True]]),
    }
    return micro, found


def test_the_numbers_by_hand() -> None:
    measures = Measures()
    add(measures, *by_hand())
    for norm in (1.5, 3.0, 2.0):
        measures.begin_update()
        measures.gradient("grad_norm", norm)
    found = measures.metrics()
    # Returns 1, 3, 5 have the variance 8/3, errors 0, 1, 2 the variance 2/3.
    expected = {
        "kl": 0.5,
        "entropy": 2.0,
        "clip_fraction": 1 / 3,
        "padding_share": 2 / 8,
        "policy_loss": 1.5 / 3,  # the sum, in three updates
        "grad_norm": 3.0,
        "value_loss": 0.5,
        "value_clip_fraction": 2 / 3,
        "explained_variance": 1 - (2 / 3) / (8 / 3),
    }
    assert found == pytest.approx(expected)


def test_without_a_critic_nothing_is_said_of_one() -> None:
    micro, found = by_hand()
    micro.values = None
    measures = Measures()
    measures.fit(micro)
    measures.policy(micro, torch.tensor(1.0), found["kl"], found["clipped"], found["entropy"])
    assert not {"value_loss", "explained_variance", "value_clip_fraction"} & measures.metrics().keys()


def test_how_far_rollout_and_learner_are_apart_by_hand() -> None:
    micro, _ = by_hand()
    found = mismatch([micro], GRPO(importance_cap=1.25))
    # Ratios e^0, e^.5 capped at 1.25, e^-.75.
    weights = torch.tensor([1.0, 1.25, -0.75], dtype=torch.float64)
    weights[2] = weights[2].exp()
    assert found["logprob_diff_max"] == pytest.approx(0.75)
    assert found["importance_weight"] == pytest.approx(float(weights.mean()))
    share = float(weights.sum() ** 2 / (3 * weights.square().sum()))
    assert found["effective_sample_share"] == pytest.approx(share)
    # The second sample's ratio is outside [1 / 1.25, 1.25], and the first's, e^.5, too.
    assert mismatch([micro], GRPO(importance="sequence_mask", importance_cap=1.25))["importance_weight"] == 0.0
    assert mismatch([micro], OnlineDPO())["importance_weight"] == pytest.approx(
        (1 + math.exp(0.5) + float(weights[2])) / 3
    )


def test_a_step_in_which_nothing_counts_has_numbers_too() -> None:
    micro, found = by_hand()
    micro.mask = micro.sampled = torch.zeros_like(micro.mask)
    measures = Measures()
    add(measures, micro, found)
    assert measures.metrics()["kl"] == 0.0
    assert mismatch([micro], GRPO())["effective_sample_share"] == 0.0
