"""What holds for each algorithm's loss as the learner sums it, its published settings and others alike."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rlhf_platform.algorithms.normalization import token_shares, units
from rlhf_platform.learner.objective import advantages_in_groups, policy_loss, token_loss
from rlhf_platform.recipe.algorithms import ALGORITHMS, CISPO, DAPO, GRPO, GSPO, NORMALIZATIONS, AlgorithmConfig, DrGRPO

PUBLISHED = [make() for make in ALGORITHMS.values()]
OTHERS = [
    GRPO(clip_ratio=0.05, kl_coef=0.0, normalization="token"),
    DrGRPO(kl_coef=0.2, normalization="sequence"),
    DAPO(kl_coef=0.2, normalization="length"),
    GSPO(clip_ratio=0.1, clip_ratio_high=0.2, kl_coef=0.2),
    CISPO(ratio_cap=1.1, kl_coef=0.2, normalization="sequence"),
]
each_algorithm = pytest.mark.parametrize("algorithm", PUBLISHED + OTHERS, ids=lambda a: f"{a.type}-{a.normalization}")

LONGEST = 7
Rows = list[dict[str, Tensor]]


def make_rows(seed: int, size: int) -> Rows:
    """Samples of 1 to `LONGEST` tokens with log-probs by each of the four who have an opinion; some do not count."""
    generator = torch.Generator().manual_seed(seed)

    def normal(scale: float, *shape: int) -> Tensor:
        return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)

    rows = []
    for _ in range(size):
        length = int(torch.randint(1, LONGEST + 1, (), generator=generator))
        old = normal(0.5, length) - 2
        rows.append(
            {
                "now": old + normal(0.3, length),
                "old": old,
                "behaviour": old + normal(0.5, length),
                "reference": old + normal(0.3, length),
                "advantage": normal(1.0, 1),
                "counts": (torch.rand(1, generator=generator) < 0.8).double(),
            }
        )
    return rows


def summed(algorithm: AlgorithmConfig, rows: Rows, extra: int = 0) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Loss and units of one micro-batch, and the gradient of the loss for each sample's tokens.

    `extra`: columns of padding beyond the longest sample.
    """
    size = max(len(row["now"]) for row in rows) + extra

    def padded(name: str) -> Tensor:
        return torch.stack([torch.nn.functional.pad(row[name], (0, size - len(row[name]))) for row in rows])

    mask = torch.stack([(torch.arange(size) < len(row["now"])) * row["counts"] for row in rows])
    logprobs = padded("now").requires_grad_()
    others = [padded(name) for name in ("old", "behaviour", "reference")]
    advantages = torch.stack([row["advantage"] for row in rows])
    found = token_loss(algorithm, logprobs, *others, advantages, mask)
    loss = (found.loss * token_shares(mask, algorithm.normalization, LONGEST)).sum()
    loss.backward()
    assert logprobs.grad is not None
    gradients = [logprobs.grad[i, : len(row["now"])] for i, row in enumerate(rows)]
    return loss.detach(), units(mask, algorithm.normalization), gradients


@each_algorithm
@given(st.integers(0, 2**31), st.integers(1, 8), st.data())
def test_neither_split_order_nor_padding_changes_loss_or_gradient(
    algorithm: AlgorithmConfig, seed: int, size: int, data: st.DataObject
) -> None:
    """Law 5, before any rank: the parts of a batch add up."""
    rows = make_rows(seed, size)
    loss, count, gradients = summed(algorithm, rows)
    order = data.draw(st.permutations(range(size)))
    cuts = sorted(data.draw(st.sets(st.integers(1, size), max_size=4)) | {0, size})
    parts = [order[start:end] for start, end in pairwise(cuts)]
    found = [summed(algorithm, [rows[i] for i in part], extra) for extra, part in enumerate(parts)]
    torch.testing.assert_close(torch.stack([part for part, _, _ in found]).sum(), loss)
    torch.testing.assert_close(torch.stack([part for _, part, _ in found]).sum(), count)
    again = dict(zip(order, (gradient for _, _, part in found for gradient in part), strict=True))
    for i, gradient in enumerate(gradients):
        torch.testing.assert_close(again[i], gradient)


@each_algorithm
def test_a_sample_without_a_reward_leaves_no_trace(algorithm: AlgorithmConfig) -> None:
    rows = make_rows(seed=3, size=12)
    kept = [row for row in rows if row["counts"] == 1]
    assert len(kept) < len(rows)
    loss, count, gradients = summed(algorithm, rows)
    alone = summed(algorithm, kept)
    torch.testing.assert_close((loss, count), alone[:2])
    assert all((gradient == 0).all() for gradient, row in zip(gradients, rows, strict=True) if row["counts"] == 0)


@pytest.mark.parametrize("make", ALGORITHMS.values(), ids=ALGORITHMS)
@given(st.integers(0, 2**31))
def test_without_advantage_there_is_no_gradient(make: type[AlgorithmConfig], seed: int) -> None:
    rows = [row | {"advantage": torch.zeros(1, dtype=torch.float64)} for row in make_rows(seed, 4)]
    loss, _, gradients = summed(make(kl_coef=0.0), rows)
    assert loss == 0
    assert all((gradient == 0).all() for gradient in gradients)


def at_rest(rows: Rows) -> Rows:
    """The policy before its first update, on samples that rollout and learner agree about: every ratio is 1."""
    return [row | dict.fromkeys(("old", "behaviour", "reference"), row["now"]) for row in rows]


@each_algorithm
@given(st.integers(0, 2**31))
def test_before_any_update_the_gradient_is_that_of_reinforce(algorithm: AlgorithmConfig, seed: int) -> None:
    rows = at_rest(make_rows(seed, 4))
    _, _, gradients = summed(algorithm, rows)
    for row, gradient in zip(rows, gradients, strict=True):
        length = {"token": 1, "sequence": len(gradient), "length": LONGEST}[algorithm.normalization]
        expected = -row["advantage"] * row["counts"] / length
        torch.testing.assert_close(gradient, expected.expand_as(gradient))


@each_algorithm
def test_a_small_step_makes_good_samples_likelier_and_bad_ones_less_likely(algorithm: AlgorithmConfig) -> None:
    """Of a softmax policy over a tiny vocabulary, by one step against the gradient of the whole loss."""
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(11, generator=generator, dtype=torch.float64, requires_grad=True)
    tokens = torch.randint(0, 11, (8, LONGEST), generator=generator)
    mask = (torch.arange(LONGEST) < torch.randint(1, LONGEST + 1, (8, 1), generator=generator)).double()
    rewards = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    advantages = advantages_in_groups(algorithm, rewards, torch.ones(2, 4, dtype=torch.bool)).view(-1, 1)

    def objective() -> Tensor:
        """What the samples are worth: advantage x log-prob, each token's share of the mean."""
        logprobs = logits.log_softmax(-1)[tokens]
        return (logprobs * advantages * token_shares(mask, algorithm.normalization, LONGEST)).sum()

    before = objective().detach()
    logprobs = logits.log_softmax(-1)[tokens]
    old = logprobs.detach()
    loss = token_loss(algorithm, logprobs, old, old, old, advantages, mask).loss
    (loss * token_shares(mask, algorithm.normalization, LONGEST)).sum().backward()
    assert logits.grad is not None
    with torch.no_grad():
        logits -= 1e-3 * logits.grad
    assert objective().detach() > before


def test_only_dr_grpo_leaves_the_spread_in() -> None:
    rewards, scored = torch.tensor([[0.0, 2.0, 4.0, 99.0]]), torch.tensor([[True, True, True, False]])
    found = {a.type: advantages_in_groups(a, rewards, scored).tolist() for a in PUBLISHED}
    standardised, centred = [[-1.0, 0.0, 1.0, 0.0]], [[-2.0, 0.0, 2.0, 0.0]]
    assert found == dict.fromkeys(ALGORITHMS, standardised) | {"dr_grpo": centred}


def test_each_name_is_its_published_self() -> None:
    assert [a.type for a in PUBLISHED] == list(ALGORITHMS)
    assert [a.normalization for a in PUBLISHED] == ["sequence", "length", "token", "sequence", "token"]
    assert {a.normalization for a in PUBLISHED} == set(NORMALIZATIONS)
    assert [a.kl_coef for a in PUBLISHED] == [0.04, 0, 0, 0, 0]


def test_a_configuration_of_no_algorithm_is_refused() -> None:
    one = torch.ones(1, 1)
    with pytest.raises(TypeError, match="AlgorithmConfig has no policy loss"):
        policy_loss(AlgorithmConfig(), one, one, one, one)
