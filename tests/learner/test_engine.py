"""The learning rate's schedule, the optimiser and DeepSpeed's settings, as the recipe names them."""

import math

import pytest
import torch

from rlhf_platform.learner.engine import deepspeed_config, learning_rate_at, optimizer
from rlhf_platform.recipe.schema import LearnerConfig


def test_the_learning_rate_rises_and_then_stays_or_falls_to_zero() -> None:
    constant = LearnerConfig(learning_rate=1.0, warmup_steps=4)
    assert [learning_rate_at(constant, u, 10) for u in range(10)] == [0.25, 0.5, 0.75] + [1.0] * 7
    linear = LearnerConfig(learning_rate=1.0, schedule="linear")
    assert [learning_rate_at(linear, u, 4) for u in range(4)] == pytest.approx([1.0, 0.75, 0.5, 0.25])


def test_a_cosine_is_half_way_down_in_the_middle() -> None:
    cosine = LearnerConfig(learning_rate=2.0, schedule="cosine")
    half = math.sqrt(0.5)
    assert [learning_rate_at(cosine, u, 4) for u in range(5)] == pytest.approx([2.0, 1 + half, 1.0, 1 - half, 0.0])


def test_a_warm_up_meets_the_fall_where_they_cross() -> None:
    linear = LearnerConfig(learning_rate=1.0, schedule="linear", warmup_steps=4)
    assert [learning_rate_at(linear, u, 4) for u in range(4)] == pytest.approx([0.25, 0.5, 0.5, 0.25])


def test_the_optimiser_is_the_recipe_s() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    made = optimizer([weight], LearnerConfig(optimizer="sgd", weight_decay=0.5), 0.1)
    weight.grad = torch.tensor([2.0])
    made.step()
    assert weight.item() == pytest.approx(1.0 - 0.1 * (2.0 + 0.5 * 1.0))
    made = optimizer([weight], LearnerConfig(adam_betas=[0.8, 0.99], weight_decay=0.25), 0.2)
    assert isinstance(made, torch.optim.AdamW)
    (group,) = made.param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (0.2, (0.8, 0.99), 0.25)


@pytest.mark.parametrize(
    ("offload", "zero"),
    [
        ("none", {"stage": 2}),
        ("optimizer", {"stage": 2, "offload_optimizer": {"device": "cpu"}}),
        ("weights", {"stage": 2, "offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}}),
    ],
)
def test_deepspeed_keeps_in_memory_what_the_recipe_says(offload: str, zero: dict[str, object]) -> None:
    found = deepspeed_config(LearnerConfig(zero_stage=2, offload=offload, max_grad_norm=0.7), "bfloat16")
    assert found["zero_optimization"] == zero
    assert found["gradient_clipping"] == 0.7
    assert found["bf16"] == {"enabled": True}
    assert deepspeed_config(LearnerConfig(), "float32")["bf16"] == {"enabled": False}
