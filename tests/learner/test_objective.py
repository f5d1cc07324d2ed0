"""What holds for each algorithm's loss as the learner sums it, its published settings and others alike."""

from itertools import chain, pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rlhf_platform.learner.micro_batches import MicroBatch
from rlhf_platform.learner.objective import (
    Coefficients,
    counted,
    learns_pairs,
    policy_loss,
    sees_first,
    summed_loss,
    token_loss,
)
from rlhf_platform.recipe.algorithms import (
    CISPO,
    DAPO,
    GDPO,
    GRPO,
    GSPO,
    PPO,
    RL_ALGORITHMS,
    RLOO,
    DrGRPO,
    OnlineConfig,
    OnlineDPO,
    ReinforcePP,
    RLConfig,
)

PUBLISHED: list[OnlineConfig] = [make() for make in RL_ALGORITHMS.values()]
OTHERS: list[OnlineConfig] = [
    GRPO(clip_ratio=0.05, kl_coef=0.0, normalization="token", importance="sequence"),
    DrGRPO(kl_coef=0.2, normalization="sequence", kl_estimator="k2"),
    DAPO(kl_coef=0.2, normalization="length", entropy_coef=0.1),
    GSPO(clip_ratio=0.1, clip_ratio_high=0.2, kl_coef=0.2, importance="sequence_mask"),
    CISPO(ratio_cap=1.1, kl_coef=0.2, normalization="sequence", importance="token_mask"),
    RLOO(clip_ratio=0.5, kl_in="loss", kl_estimator="k3"),
    ReinforcePP(kl_in="loss", kl_estimator="straight_through", normalization="length"),
    PPO(dual_clip=1.5, kl_in="loss", kl_estimator="k3", normalization="sequence", entropy_coef=0.05),
    OnlineDPO(loss_type="hinge"),
    OnlineDPO(loss_type="ipo", kl_coef=0.3),
]


def name_of(algorithm: OnlineConfig) -> str:
    return f"{algorithm.type}-{getattr(algorithm, 'loss_type', algorithm.normalization)}"


each_algorithm = pytest.mark.parametrize("algorithm", PUBLISHED + OTHERS, ids=name_of)
each_rl_algorithm = pytest.mark.parametrize(
    "algorithm", [a for a in PUBLISHED + OTHERS if isinstance(a, RLConfig)], ids=name_of
)

LONGEST = 7
Rows = list[dict[str, Tensor]]


def make_units(algorithm: OnlineConfig, seed: int, size: int) -> list[Rows]:
    """Samples, or pairs of them, of 1 to `LONGEST` tokens with log-probs by each of the four who have an opinion; some
    do not count, and some tokens are not learnt."""
    generator = torch.Generator().manual_seed(seed)

    def normal(scale: float, *shape: int) -> Tensor:
        return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)

    def likely(*shape: int) -> Tensor:
        return (torch.rand(*shape, generator=generator) < 0.8).double()

    def row() -> dict[str, Tensor]:
        length = int(torch.randint(1, LONGEST + 1, (), generator=generator))
        old = normal(0.5, length) - 2
        of_each_token = isinstance(algorithm, PPO | ReinforcePP)
        return {
            "now": old + normal(0.3, length),
            "old": old,
            "behaviour": old + normal(0.5, length),
            "reference": old + normal(0.3, length),
            "advantages": normal(1.0, length) if of_each_token else normal(1.0, 1).expand(length),
            "learnt": likely(length),
            "counts": likely(1),
        }

    return [[row() for _ in range(2 if learns_pairs(algorithm) else 1)] for _ in range(size)]


def micro_of(rows: Rows, extra: int = 0) -> MicroBatch:
    """As `micro_batches` makes it, in float64. `extra`: columns of padding beyond the longest sample."""
    size = max(len(row["now"]) for row in rows) + extra

    def padded(name: str) -> Tensor:
        return torch.stack([torch.nn.functional.pad(row[name], (0, size - len(row[name]))) for row in rows])

    sampled = torch.stack([(torch.arange(size) < len(row["now"])) * row["counts"] for row in rows])
    columns: dict[str, Any] = {name: padded(name) for name in ("advantages", "behaviour", "old", "reference")}
    nothing: Any = None
    return MicroBatch(
        [], nothing, None, mask=sampled * padded("learnt"), sampled=sampled, **columns, values=None, returns=None
    )


def summed(algorithm: OnlineConfig, units: list[Rows], extra: int = 0) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Loss and what it is a mean over, of one micro-batch, and the gradient of the loss for the tokens of each unit."""
    rows = list(chain.from_iterable(units))
    micro = micro_of(rows, extra)
    now = [row["now"].clone().requires_grad_() for row in rows]
    size = micro.mask.shape[1]
    logprobs = torch.stack([torch.nn.functional.pad(n, (0, size - len(n))) for n in now])
    coefficients = Coefficients(algorithm.kl_coef, getattr(algorithm, "entropy_coef", 0.0))
    # An entropy of its own for each token, which has a gradient too.
    loss, _ = summed_loss(algorithm, micro, logprobs, -logprobs * logprobs.exp(), coefficients, LONGEST)
    gradients = iter(torch.autograd.grad(loss, now))
    by_unit = [torch.cat([next(gradients) for _ in unit]) for unit in units]
    return loss.detach(), counted(algorithm, micro.mask, algorithm.normalization), by_unit


@each_algorithm
@settings(max_examples=25)
@given(st.integers(0, 2**31), st.integers(1, 8), st.data())
def test_neither_split_order_nor_padding_changes_loss_or_gradient(
    algorithm: OnlineConfig, seed: int, size: int, data: st.DataObject
) -> None:
    """Law 5, before any rank: the parts of a batch add up."""
    units = make_units(algorithm, seed, size)
    loss, count, gradients = summed(algorithm, units)
    order = data.draw(st.permutations(range(size)))
    cuts = sorted(data.draw(st.sets(st.integers(1, size), max_size=4)) | {0, size})
    parts = [order[start:end] for start, end in pairwise(cuts)]
    found = [summed(algorithm, [units[i] for i in part], extra) for extra, part in enumerate(parts)]
    torch.testing.assert_close(torch.stack([part for part, _, _ in found]).sum(), loss)
    torch.testing.assert_close(torch.stack([part for _, part, _ in found]).sum(), count)
    again = dict(zip(order, (gradient for _, _, part in found for gradient in part), strict=True))
    for i, gradient in enumerate(gradients):
        torch.testing.assert_close(again[i], gradient)


@each_algorithm
def test_a_sample_without_a_reward_leaves_no_trace_and_neither_does_its_pair(algorithm: OnlineConfig) -> None:
    units = make_units(algorithm, seed=3, size=12)
    counts = [all(row["counts"] == 1 for row in unit) for unit in units]
    assert 0 < sum(counts) < len(units)
    loss, count, gradients = summed(algorithm, units)
    alone = summed(algorithm, [unit for unit, kept in zip(units, counts, strict=True) if kept])
    torch.testing.assert_close((loss, count), alone[:2])
    assert all((gradient == 0).all() for gradient, kept in zip(gradients, counts, strict=True) if not kept)
    assert any(gradient.any() for gradient in gradients)


@each_algorithm
@settings(max_examples=8)
@given(st.integers(0, 2**31))
def test_a_token_that_is_not_learnt_has_no_gradient(algorithm: OnlineConfig, seed: int) -> None:
    units = make_units(algorithm, seed, 4)
    for unit, gradient in zip(units, summed(algorithm, units)[2], strict=True):
        assert (gradient[torch.cat([row["learnt"] for row in unit]) == 0] == 0).all()


@pytest.mark.parametrize("name", [name for name, make in RL_ALGORITHMS.items() if issubclass(make, RLConfig)])
@settings(max_examples=8)
@given(st.integers(0, 2**31))
def test_without_advantage_there_is_no_gradient(name: str, seed: int) -> None:
    algorithm = RL_ALGORITHMS[name](kl_coef=0.0)
    units = [
        [row | {"advantages": torch.zeros_like(row["advantages"])} for row in unit]
        for unit in make_units(algorithm, seed, 4)
    ]
    loss, _, gradients = summed(algorithm, units)
    assert loss == 0
    assert all((gradient == 0).all() for gradient in gradients)


def at_rest(units: list[Rows]) -> list[Rows]:
    """The policy before its first update, on samples that rollout and learner agree about: every ratio is 1."""
    return [[row | dict.fromkeys(("old", "behaviour", "reference"), row["now"]) for row in unit] for unit in units]


def reinforce(algorithm: OnlineConfig, row: dict[str, Tensor], advantages: Tensor | float) -> Tensor:
    """Advantage times log-prob, by the algorithm's normalisation; RLOO and DPO have the log-prob of the whole sample,
    which is a sum over its tokens, IPO its mean."""
    learnt = row["learnt"] * row["counts"]
    whole = isinstance(algorithm, RLOO) or (isinstance(algorithm, OnlineDPO) and algorithm.loss_type != "ipo")
    own = 1.0 if whole else float(learnt.sum().clamp(min=1))
    return -advantages * learnt / {"token": 1.0, "sequence": own, "length": LONGEST}[algorithm.normalization]


@each_rl_algorithm
@settings(max_examples=8)
@given(st.integers(0, 2**31))
def test_before_any_update_the_gradient_is_that_of_reinforce(algorithm: RLConfig, seed: int) -> None:
    algorithm = type(algorithm)(**(vars(algorithm) | {"entropy_coef": 0.0}))
    units = at_rest(make_units(algorithm, seed, 4))
    for (row,), gradient in zip(units, summed(algorithm, units)[2], strict=True):
        torch.testing.assert_close(gradient, reinforce(algorithm, row, row["advantages"]))


# The slope of the loss at d = 0, chosen and rejected as likely as under the reference: of -log sigmoid(beta d) it is
# beta / 2, of 1 - beta d beta, of (d - 1 / (2 beta))^2 1 / beta; beta is 0.2.
@pytest.mark.parametrize(("loss_type", "slope"), [("sigmoid", 0.1), ("hinge", 0.2), ("ipo", 5.0)])
@settings(max_examples=8)
@given(seed=st.integers(0, 2**31))
def test_before_any_update_a_pair_pulls_its_samples_apart(loss_type: str, slope: float, seed: int) -> None:
    algorithm = OnlineDPO(loss_type=loss_type, kl_coef=0.2)
    units = at_rest(make_units(algorithm, seed, 4))
    for (chosen, rejected), gradient in zip(units, summed(algorithm, units)[2], strict=True):
        counts = all((row["learnt"] * row["counts"]).any() for row in (chosen, rejected))
        pulls = [reinforce(algorithm, chosen, slope), reinforce(algorithm, rejected, -slope)]
        torch.testing.assert_close(gradient, torch.cat(pulls) * counts)


@each_algorithm
def test_a_small_step_makes_good_samples_likelier_and_bad_ones_less_likely(algorithm: OnlineConfig) -> None:
    """Of a softmax policy over a tiny vocabulary, by one step against the gradient of the whole loss."""
    units = make_units(algorithm, seed=5, size=8)
    rows = [row | {"counts": torch.ones(1), "learnt": torch.ones_like(row["learnt"])} for unit in units for row in unit]
    if learns_pairs(algorithm):
        rows = [row | {"advantages": torch.ones(1) * (1 - 2 * (i % 2))} for i, row in enumerate(rows)]
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(11, generator=generator, dtype=torch.float64, requires_grad=True)
    tokens = [torch.randint(0, 11, row["now"].shape, generator=generator) for row in rows]

    def objective() -> Tensor:
        """What the samples are worth: advantage x log-prob, each token's share of the mean."""
        every = logits.log_softmax(-1)
        worth = [
            -(reinforce(algorithm, row, row["advantages"]) * every[t]).sum()
            for row, t in zip(rows, tokens, strict=True)
        ]
        return torch.stack(worth).sum()

    before = objective().detach()
    every = logits.log_softmax(-1)
    now = [every[t] for t in tokens]
    there = [
        row | dict.fromkeys(("old", "behaviour", "reference"), n.detach()) for row, n in zip(rows, now, strict=True)
    ]
    micro = micro_of([row | {"advantages": row["advantages"].expand(len(row["now"]))} for row in there])
    size = micro.mask.shape[1]
    logprobs = torch.stack([torch.nn.functional.pad(n, (0, size - len(n))) for n in now])
    # Without an entropy bonus, which pulls elsewhere.
    summed_loss(algorithm, micro, logprobs, logprobs, Coefficients(algorithm.kl_coef), LONGEST)[0].backward()
    assert logits.grad is not None
    with torch.no_grad():
        logits -= 1e-3 * logits.grad
    assert objective().detach() > before


@each_rl_algorithm
def test_the_kl_is_in_the_loss_or_in_the_reward_and_never_in_both(algorithm: RLConfig) -> None:
    (rows,) = zip(*make_units(algorithm, 11, 6), strict=True)
    micro = micro_of(list(rows))
    now, weight = micro.behaviour, torch.ones_like(micro.mask)
    assert micro.old is not None

    def loss(reference: Tensor | None, coef: float) -> Tensor:
        return token_loss(algorithm, now, micro.old, weight, reference, micro.advantages, micro.mask, coef).loss

    paid = not torch.equal(loss(micro.reference, 0.5), loss(None, 0.5))
    assert paid == (algorithm.kl_in == "loss")
    assert torch.equal(loss(micro.reference, 0.0), loss(None, 0.0))


@each_algorithm
def test_without_log_probs_from_before_the_step_they_are_those_of_now(algorithm: OnlineConfig) -> None:
    micro = micro_of(list(chain.from_iterable(make_units(algorithm, 7, 5))))
    coefficients = Coefficients(algorithm.kl_coef)
    found = []
    for old in (None, micro.behaviour - 0.1):
        logprobs = (micro.behaviour - 0.1).requires_grad_()
        micro.old = old
        loss, _ = summed_loss(algorithm, micro, logprobs, logprobs, coefficients, LONGEST)
        found.append((loss.detach(), *torch.autograd.grad(loss, logprobs)))
    torch.testing.assert_close(found[0], found[1])


TABLE: dict[str, dict[str, object]] = {
    # From the papers that each class names in its docstring; what the paper leaves open is not in the table.
    "grpo": {"clip_ratio": 0.2, "kl_coef": 0.04, "kl_in": "loss", "kl_estimator": "k3", "normalization": "sequence"},
    "dr_grpo": {"clip_ratio": 0.2, "kl_coef": 0.0, "normalization": "length"},
    "dapo": {
        "clip_ratio": 0.2,
        "clip_ratio_high": 0.28,
        "overlong_share": 4096 / 20480,
        "kl_coef": 0.0,
        "normalization": "token",
    },
    "gspo": {
        "clip_ratio": 3e-4,
        "clip_ratio_high": 4e-4,
        "minibatches": 4,
        "kl_coef": 0.0,
        "normalization": "sequence",
    },
    "cispo": {"kl_coef": 0.0, "normalization": "token"},
    "gdpo": {"clip_ratio": 0.2, "kl_in": "loss", "kl_estimator": "k3", "normalization": "sequence"},
    "rloo": {
        "group_size": 4,
        "kl_coef": 0.03,
        "kl_in": "reward",
        "kl_estimator": "k1",
        "normalization": "sequence",
        "epochs": 1,
        "minibatches": 1,
    },
    "reinforce_pp": {
        "group_size": 1,
        "clip_ratio": 0.2,
        "kl_coef": 0.01,
        "kl_in": "reward",
        "kl_estimator": "k1",
        "gamma": 1.0,
        "normalization": "token",
    },
    "ppo": {
        "group_size": 1,
        "clip_ratio": 0.2,
        "value_clip": 0.2,
        "dual_clip": None,
        "kl_coef": 0.02,
        "kl_in": "reward",
        "kl_estimator": "k1",
        "gamma": 1.0,
        "gae_lambda": 0.95,
        "critic": "copy",
        "critic_learning_rate": 9e-6,
        "minibatches": 512 // 64,
        "normalization": "token",
    },
    "online_dpo": {"group_size": 2, "kl_coef": 0.1, "loss_type": "sigmoid", "normalization": "sequence"},
}


def test_each_name_is_its_published_self() -> None:
    found = {name: {key: getattr(a, key) for key in TABLE[name]} for name, a in zip(TABLE, PUBLISHED, strict=True)}
    assert found == TABLE
    assert list(RL_ALGORITHMS) == list(TABLE)
    assert [a.type for a in PUBLISHED] == list(TABLE)


def test_nothing_that_no_paper_has_acts_by_itself() -> None:
    for algorithm in PUBLISHED:
        kept = (algorithm.reference_every, algorithm.train_tokens, algorithm.train_turns)
        assert kept == (0, "all", "all"), algorithm.type
        if isinstance(algorithm, RLConfig):
            assert (algorithm.kl_target, algorithm.entropy_coef, algorithm.entropy_target) == (None, 0, None)


def test_who_must_see_samples_first_and_who_learns_pairs() -> None:
    assert {a.type for a in PUBLISHED if sees_first(a)} == {"rloo", "reinforce_pp", "ppo"}
    assert {a.type for a in PUBLISHED if learns_pairs(a)} == {"online_dpo"}
    assert not sees_first(RLOO(kl_coef=0.0))
    assert not sees_first(RLOO(kl_in="loss"))
    assert sees_first(PPO(kl_coef=0.0))
    assert sees_first(GRPO(kl_in="reward"))
    assert not sees_first(GDPO())


def test_a_configuration_of_no_algorithm_is_refused() -> None:
    one = torch.ones(1, 1)
    with pytest.raises(TypeError, match="RLConfig has no policy loss"):
        policy_loss(RLConfig(), one, one, one, one)
