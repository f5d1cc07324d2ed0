"""What each layout of the learner holds, by hand and on real modules."""

import weakref
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from policies.critic import Critic
from policies.dimensions import Layers
from policies.empty import empty_model
from policies.load import load_adapter
from policies.mtp.heads import new_heads
from policies.reward_model import RewardModel as RewardModule
from policies.reward_model import freeze_head_of_vocabulary
from rlhf_platform.algorithms.logprobs import tiled_logprobs, token_logprobs
from rlhf_platform.planning import activations, zero
from rlhf_platform.planning.actors import PROCESS, TRAINER, head_parameters, rollout_memory
from rlhf_platform.planning.batches import Passes, batch_of, batches, passes_of, serves
from rlhf_platform.planning.learner import critic_state, learner_memory, policy_state, shares_trunk
from rlhf_platform.planning.plan import memory_of
from rlhf_platform.planning.sizes import sizes_of
from rlhf_platform.recipe.algorithms import GRPO, PPO, AlgorithmConfig, OnlineDPO, ReinforcePP
from rlhf_platform.recipe.backbone import BackboneConfig
from rlhf_platform.recipe.mtp import MultiTokenConfig
from rlhf_platform.recipe.preferences import DPO, IPO, KTO, RewardModel
from rlhf_platform.recipe.schema import LoraConfig, Recipe, RolloutConfig
from tests.layouts import CASES, LAYOUTS, WHISPER_WINDOW
from tests.planning.test_memory import recipe, sizes

GIB = 2**30


def of(algorithm: AlgorithmConfig, **learner: object) -> Recipe:
    made = recipe(**learner)
    made.algorithm = algorithm
    return made


def test_sgd_keeps_nothing_but_the_copy_that_zero_makes() -> None:
    plain = zero.state(1500, 1200, 400, stage=0, ranks=1, width=4, optimizer="sgd")
    assert (plain.optimiser, plain.step) == (0, 4 * 400)
    divided = zero.state(1000, 1000, 400, stage=1, ranks=4, width=2, optimizer="sgd")
    assert divided.optimiser == 4 * 250
    assert learner_memory(recipe(optimizer="sgd"), sizes()).host["optimiser"] == 0


def test_the_optimiser_goes_to_the_machine() -> None:
    """1000 parameters in bfloat16 on 4 ranks at stage 1: all gradients and the largest tensor's stay; a part of 250 is
    12 bytes of optimiser, 12 of its step, and gradients and weights in bfloat16, a largest tensor on the way."""
    found = zero.state(1000, 1000, 400, stage=1, ranks=4, width=2, on_gpu=True, offload="optimizer")
    assert (found.weights, found.gradients, found.optimiser, found.step) == (2000, 2 * (1000 + 400), 0, 0)
    assert found.host == 12 * 250 + 12 * 250 + 2 * 2 * 250 + 2 * 400


def test_weights_go_to_the_machine_at_stage_3() -> None:
    """7 billion parameters on 8 ranks: a billion stays whole on the GPU, an eighth is in the machine's memory."""
    size = 7 * 10**9
    optimizer = zero.state(size, size, 400, stage=3, ranks=8, width=2, offload="optimizer")
    weights = zero.state(size, size, 400, stage=3, ranks=8, width=2, offload="weights")
    assert weights.weights == 2 * zero.LIVE < optimizer.weights
    assert weights.host - optimizer.host == 2 * 875_000_000


def test_nothing_is_offloaded_without_a_gpu_or_a_stage() -> None:
    assert learner_memory(recipe(offload="optimizer", zero_stage=1), sizes()).host["optimiser"] == 12 * 1200
    on_gpu = learner_memory(recipe(offload="optimizer", zero_stage=2, gpus=1), sizes())
    assert on_gpu.device["optimiser"] == 0
    assert on_gpu.host["offload"] == 24 * 1200 + 4 * (2 * 1200 + 400)


def test_checkpointed_layers_keep_their_input_and_all_of_one() -> None:
    """Three layers of 60 features in the model's type, 8 in float32 and a mask of 3, as in `test_memory`."""
    layers = Layers(3, 4, 4, 2, 8, gated=True)
    assert activations.stack(layers, 2, 3, 4, checkpointed=True) == 6 * 4 * (3 * 4 + (60 + 8 + 3) + 8)
    crossing = Layers(3, 4, 4, 4, 8, crosses=True)
    assert activations.across(crossing, 2, 5, 4, checkpointed=True) == 2 * 5 * 2 * 4 * 4
    plain, less = (learner_memory(recipe(activation_checkpointing=on), sizes()).host for on in (False, True))
    decoder = sizes().dimensions.decoder
    saved = activations.stack(decoder, 32, 80, 4) - activations.stack(decoder, 32, 80, 4, checkpointed=True)
    assert plain["activations"] - less["activations"] == saved > 0


class Peak(TorchDispatchMode):
    """Follows the bytes of all tensors that are made inside of it."""

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()
        self.live = self.most = 0
        self._seen = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage())._cdata not in self._seen:
                self._seen.add(storage._cdata)
                self.live += storage.nbytes()
                self.most = max(self.most, self.live)
                weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        return out

    def _gone(self, number: int, size: int) -> None:
        self._seen.discard(number)
        self.live -= size


@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vocabulary", [4_000, 40_000])
def test_the_head_takes_what_is_planned(vocabulary: int, dtype: torch.dtype, entropy: bool) -> None:
    """Two micro-batches one after the other, beside the weight and its gradient."""
    tokens, features = 300, 32
    head = torch.nn.Linear(features, vocabulary, bias=False, dtype=dtype)
    head.weight.grad = torch.zeros_like(head.weight)
    states = torch.randn(tokens, features, dtype=dtype, requires_grad=True)
    chosen, allowed = torch.randint(vocabulary, (tokens,)), torch.ones(vocabulary, dtype=torch.bool)
    with Peak([head.weight, head.weight.grad, states]) as peak:
        for _ in range(2):
            if vocabulary < activations.TILED_FROM:
                found = token_logprobs(head(states), chosen, allowed, 1.0, entropy)
            else:
                found = tiled_logprobs(states, head.weight, None, chosen, allowed, 1.0, entropy)
            (found[0].sum() + (found[1].sum() if entropy else 0)).backward()
            del found
    width = dtype.itemsize
    planned = activations.head(tokens, vocabulary, features, width)
    assert 0.94 * peak.most < planned < 1.15 * peak.most


def test_a_tiled_head_by_hand() -> None:
    """10 tokens of 8 features: a tile of 4,096 entries, and the gradients of 10 states and 50,000 rows of the head."""
    gradients = 4 * 8 * (10 + 50_000)
    assert activations.head(10, 50_000, 8, 4) == 10 * 4096 * (4 + 33) + gradients
    assert activations.head(10, 50_000, 8, 4, learns=False) == 10 * 4096 * (4 + 33) + 4 * 8 * 10
    assert activations.head(10, 50_000, 8, 2, on_gpu=True) == 10 * 4096 * 2 + 6 * 8 * (10 + 50_000)
    assert activations.head(10, 2_000, 8, 4) == 10 * 2_000 * 24


def test_budgets_bound_a_micro_batch() -> None:
    """Rows of 10 + 50 + 20 positions, 8 samples of a clip of 2 s, 32 samples in all."""
    assert batch_of(recipe(micro_batch_tokens=400), sizes(), 2.0).rows == 5
    assert batch_of(recipe(micro_batch_tokens=64), sizes(), 2.0).rows == 1
    bounded = batch_of(recipe(micro_batch_seconds=5.0), sizes(), 2.0)
    assert (bounded.rows, bounded.clips) == (16, 2)
    pairs = of(OnlineDPO(group_size=4), micro_batch_tokens=400)
    assert batch_of(pairs, sizes(), 2.0).rows == 4
    pairs.learner.micro_batch_tokens = 64
    assert batch_of(pairs, sizes(), 2.0).rows == 2


def test_a_budget_lets_more_short_clips_into_a_forward() -> None:
    """Of 8 x 0.25 s clips 32 rows of 10 + 7 + 20 positions are within 4 s; of 2 s clips 16 rows."""
    found = list(batches(recipe(micro_batch_seconds=4.0), sizes()))
    assert [(b.seconds, b.rows, b.positions) for b in found] == [
        (2, 16, 80),
        (1, 32, 55),
        (0.5, 32, 43),
        (0.25, 32, 37),
    ]
    (only,) = batches(recipe(), sizes())
    assert (only.seconds, only.rows) == (2.0, 32)


def test_a_critics_copy_by_hand() -> None:
    """1500 weights, of which the decoder's 1000 learn, and a head of 8 + 1. No output head, so no logits."""
    found = learner_memory(of(PPO(minibatches=1)), sizes()).host
    assert found["critic"] == 4 * 1509 + 4 * 1009 + 8 * 1009
    assert found["reference"] == 4 * 1500
    without = learner_memory(of(PPO(minibatches=1, kl_coef=0.0)), sizes()).host
    assert without["reference"] == 0
    assert without["critic"] == found["critic"]
    # One sample of each of 4 prompts; the critic's turn takes what its layers keep.
    layers = activations.stack(sizes().dimensions.decoder, 4, 80, 4)
    assert found["activations"] == layers + 4 * 20 * 25 * 24


@pytest.mark.parametrize(
    ("keys", "learner", "shared"),
    [
        ({}, {}, True),
        ({"kl_coef": 0.0}, {}, False),
        ({"reference_every": 5}, {}, False),
        ({}, {"zero_stage": 3}, False),
        ({}, {"lora": LoraConfig(rank=4)}, False),
    ],
)
def test_a_trunk_is_the_reference_where_that_stands_still(keys: Any, learner: Any, shared: bool) -> None:
    """The head: 8 x 8 + 8, and 8 + 1."""
    asked = of(PPO(critic="trunk", **keys), **learner)
    assert shares_trunk(asked) is shared
    found = critic_state(asked, sizes())
    assert found.weights == 4 * (81 + (0 if shared else 1500))
    assert found.gradients >= 4 * 81
    assert learner_memory(asked, sizes()).on_host < learner_memory(of(PPO(**keys), **learner), sizes()).on_host


def test_a_critic_has_the_stage_the_optimiser_and_the_offload_of_the_policy() -> None:
    learner = {"zero_stage": 2, "gpus": 1, "offload": "optimizer", "optimizer": "sgd", "workers": 2}
    found = learner_memory(of(PPO(), **learner), sizes())
    critic = zero.state(1509, 1009, 300, 2, 2, 4, on_gpu=True, optimizer="sgd", offload="optimizer")
    policy = zero.state(1500, 1200, 400, 2, 2, 4, on_gpu=True, optimizer="sgd", offload="optimizer")
    assert found.device["critic"] == critic.weights + critic.gradients
    assert found.host["offload"] == critic.host + policy.host


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{'tied' if case[1] else 'untied'}")
def backbone(request: pytest.FixtureRequest, tmp_path: Path) -> BackboneConfig:
    layout, tied = request.param
    LAYOUTS[layout].build(tmp_path, tied)
    return BackboneConfig(adapter=LAYOUTS[layout].adapter, path=str(tmp_path), window=WHISPER_WINDOW)


def counted(module: torch.nn.Module) -> tuple[int, int]:
    parameters = list(module.parameters())
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


def test_real_critics_and_reward_models_have_as_many_parameters(backbone: BackboneConfig) -> None:
    adapter = load_adapter(backbone.adapter, str(backbone.path))
    for kind, freeze_encoder, rank in product(("copy", "trunk"), (True, False), (0, 4)):
        asked = of(PPO(critic=kind, kl_coef=0.0), freeze_encoder=freeze_encoder, lora=LoraConfig(rank=rank))
        asked.backbone = backbone
        real = Critic(adapter, adapter.load_model(torch.float32), freeze_encoder, trunk=kind == "trunk")
        total, learnt = counted(real)
        found = critic_state(asked, sizes_of(asked))
        assert (found.weights, found.gradients, found.optimiser) == (4 * total, 4 * learnt, 8 * learnt)
        assert found.step == 2 * 4 * max(p.numel() for p in real.parameters() if p.requires_grad)
    asked = of(RewardModel(), freeze_encoder=False)
    asked.backbone = backbone
    model = adapter.load_model(torch.float32)
    freeze_head_of_vocabulary(model)
    total, learnt = counted(RewardModule(adapter, model, seed=0))
    found = policy_state(asked, sizes_of(asked))
    assert (found.weights, found.gradients) == (4 * total, 4 * learnt)


@pytest.mark.parametrize("algorithm", [DPO(batch_size=8), IPO(batch_size=8), KTO(batch_size=8)])
def test_a_preference_trainer_holds_a_reference_with_lora_too(algorithm: Any) -> None:
    plain, lora = of(algorithm), of(algorithm, lora=LoraConfig(rank=4))
    for asked, model in ((plain, sizes()), (lora, sizes(lora=64, served=True))):
        found = learner_memory(asked, model).host
        assert found["reference"] == 4 * 1500
        assert found["process"] == PROCESS["learner"] + TRAINER
        assert rollout_memory(asked, model).host["sync"] == 0
    divided = learner_memory(of(algorithm, zero_stage=3, workers=4), sizes()).host
    assert divided["reference"] == zero.state(1500, 0, 0, 3, 4, 4).weights


def test_pairs_go_two_rows_at_a_time() -> None:
    """6 pairs a rank; at most 5 of 10 rows, and forwards alike: 3 pairs. A clip for each row but in a reward model."""
    found = batch_of(of(DPO(batch_size=12), workers=2, micro_batch_size=10), sizes(), 2.0)
    assert (found.rows, found.clips, found.positions) == (6, 6, 80)
    found = batch_of(of(RewardModel(batch_size=12), workers=2, micro_batch_size=10), sizes(), 2.0)
    assert (found.rows, found.clips) == (6, 3)
    assert batch_of(of(KTO(batch_size=12), workers=2, micro_batch_size=5), sizes(), 2.0).rows == 3


def test_a_trainer_by_hand() -> None:
    """TRL's head: on a CPU at all 6 x 80 positions, its tile the whole vocabulary of 25."""
    found = learner_memory(of(DPO(batch_size=3)), sizes(), clips=5).host
    layers = activations.stack(sizes().dimensions.decoder, 6, 80, 4)
    assert found["activations"] == layers + 480 * 25 * (4 + 33) + 4 * 8 * (480 + 25)
    # 40 steps of 3 pairs draw no more than the 5 clips.
    assert found["clips"] == 5 * 200 * 80 * 4
    alone = learner_memory(of(RewardModel(batch_size=3)), sizes(), clips=5).host
    assert alone["activations"] == layers
    assert alone["gradients"] == 4 * (1000 + 8)
    assert alone["reference"] == 0


def test_rollout_stands_beside_a_trainer_but_for_a_reward_model_of_given_pairs() -> None:
    asked = of(DPO())
    asked.backbone = BackboneConfig()
    assert serves(asked)
    assert set(memory_of(asked, None)) == {"rollout", "learner", "reward"}
    given = replace(asked, algorithm=RewardModel(), data=replace(asked.data, pairs="pairs.jsonl"))
    assert set(memory_of(given, None)) == {"learner", "reward"}


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        (GRPO(kl_coef=0.0), Passes(0, 1, 0)),
        (GRPO(), Passes(1, 1, 1)),
        (GRPO(kl_coef=0.0, minibatches=2), Passes(1, 1, 0)),
        (GRPO(kl_coef=0.0, epochs=3), Passes(1, 3, 0)),
        (ReinforcePP(kl_coef=0.0), Passes(1, 1, 0)),
        (PPO(epochs=2), Passes(1, 2, 1, 1, 2)),
        (DPO(), Passes(0, 1, 1)),
        (KTO(), Passes(1, 1, 2)),
        (KTO(loss_type="apo_zero_unpaired"), Passes(0, 1, 1)),
        (RewardModel(), Passes(0, 1, 0)),
    ],
)
def test_passes_over_an_answer(algorithm: AlgorithmConfig, expected: Passes) -> None:
    assert passes_of(of(algorithm)) == expected


def test_heads_that_draft_are_counted_where_they_are() -> None:
    asked = Recipe(name="a", rollout=RolloutConfig(speculative="mtp"), mtp=MultiTokenConfig(blocks=3, steps=10))
    model = empty_model(asked.backbone, asked.learner).model
    with torch.device("meta"):
        heads = new_heads(model, asked.mtp.blocks, (0,))
    count = head_parameters(asked, sizes_of(asked))
    assert count == sum(weight.numel() for weight in heads.parameters() if weight.dim() > 1)
    assert rollout_memory(asked, sizes_of(asked)).host["heads"] == 4 * count
    # Weights, gradients and the two numbers of AdamW.
    assert learner_memory(asked, sizes_of(asked)).host["heads"] == 16 * count
    plain = replace(asked, rollout=RolloutConfig())
    assert head_parameters(plain, sizes_of(plain)) == learner_memory(plain, sizes_of(plain)).host["heads"] == 0
