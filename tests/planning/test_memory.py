"""Memory by hand calculation, and the order that it must keep whatever the recipe."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.dimensions import Dimensions, Encoder, Layers
from rlhf_platform.planning import activations, zero
from rlhf_platform.planning.actors import (
    BATCHED_TOKENS,
    CUDA_CONTEXT,
    PROCESS,
    REWARD_CHILD,
    reward_memory,
    rollout_memory,
)
from rlhf_platform.planning.batches import batch_of
from rlhf_platform.planning.learner import KEPT_CLIPS, has_reference, learner_memory
from rlhf_platform.planning.sizes import Sizes, sizes_of
from rlhf_platform.recipe.algorithms import CISPO, GRPO, PPO
from rlhf_platform.recipe.backbone import BackboneConfig
from rlhf_platform.recipe.schema import LearnerConfig, LoraConfig, Recipe, RewardConfig, RolloutConfig

PARTS = ("encoder", "adaptor", "decoder", "embedding", "head", "LoRA")
GIB = 2**30


def sizes(decoder: int = 1000, lora: int = 0, served: bool = False) -> Sizes:
    """A made-up model whose numbers can be followed by hand."""
    total = dict.fromkeys(PARTS, 0) | {"encoder": 300, "decoder": decoder, "head": 200, "LoRA": lora}
    trained = {"LoRA": lora} if lora else {"decoder": decoder, "head": 200}
    layers = Layers(2, 8, 8, 4, 16, gated=True)
    encoder = Encoder(Layers(1, 6, 6, 6, 12), 50.0, 25.0, 6, 80, 40, padded=True)
    found = Dimensions(layers, vocabulary=25, prompt_tokens=10, encoder=encoder)
    critic = dict.fromkeys(PARTS, 0) | {"decoder": decoder}
    return Sizes(total, dict.fromkeys(PARTS, 0) | trained, 400, 200, critic, 300, served, found)


def recipe(**learner: object) -> Recipe:
    made = Recipe(name="test", backbone=BackboneConfig(window=2.0), algorithm=GRPO(kl_coef=0.0))
    made.learner = replace(LearnerConfig(), **learner)  # type: ignore[arg-type]
    made.rollout = RolloutConfig(prompts_per_step=4, max_new_tokens=20, max_tokens=128, kv_cache_gib=0.5)
    return made


def test_stage_0_is_all_of_it_on_every_rank() -> None:
    """Float32: 4 bytes of weight and gradient, two moments; frozen weights have neither gradient nor moments."""
    found = zero.state(parameters=1500, trained=1200, largest=400, stage=0, ranks=4, width=4)
    assert (found.weights, found.gradients, found.optimiser) == (6000, 4800, 9600)


def test_bfloat16_at_stage_0_keeps_a_float32_copy() -> None:
    """The 16 bytes a parameter of the ZeRO paper's mixed precision: 2 + 2 + (4 + 4 + 4)."""
    found = zero.state(parameters=1000, trained=1000, largest=400, stage=0, ranks=1, width=2)
    assert found.weights + found.gradients + found.optimiser == 16_000
    assert found.step == 2 * 4 * 400 + 4 * 1000


def test_stage_1_divides_the_optimiser() -> None:
    found = zero.state(parameters=1000, trained=1000, largest=400, stage=1, ranks=4, width=2)
    assert (found.weights, found.optimiser) == (2000, 12 * 250)
    assert found.gradients == 2 * (1000 + 250)


def test_stage_2_divides_gradients_but_for_the_bucket() -> None:
    small = zero.state(parameters=1000, trained=1000, largest=400, stage=2, ranks=4, width=2)
    assert small.gradients == 2 * (1000 + 250)
    large = zero.state(4 * 10**9, 4 * 10**9, 400, stage=2, ranks=4, width=2)
    assert large.gradients == 2 * (10**9 + zero.BUCKET)
    assert large.weights == 8 * 10**9


def test_a_gpu_reserves_the_whole_bucket() -> None:
    found = zero.state(parameters=1000, trained=1000, largest=400, stage=2, ranks=4, width=2, on_gpu=True)
    assert found.gradients == 2 * (250 + zero.BUCKET)


def test_stage_3_divides_weights_but_for_those_that_are_whole() -> None:
    """7 billion parameters on 8 ranks in bfloat16: an eighth, and a billion that stay whole."""
    found = zero.state(7 * 10**9, 7 * 10**9, 400, stage=3, ranks=8, width=2)
    assert found.weights == 2 * (875_000_000 + zero.LIVE)
    assert found.optimiser == 12 * 875_000_000


@given(
    parameters=st.integers(10, 10**10),
    share=st.floats(0.01, 1.0),
    ranks=st.integers(1, 512),
    stage=st.integers(1, 3),
    width=st.sampled_from([2, 4]),
    on_gpu=st.booleans(),
)
def test_more_ranks_never_raise_what_a_rank_holds(
    parameters: int, share: float, ranks: int, stage: int, width: int, on_gpu: bool
) -> None:
    trained = max(1, int(parameters * share))
    few, many = (zero.state(parameters, trained, trained, stage, n, width, on_gpu) for n in (ranks, ranks + 1))
    assert many.weights <= few.weights
    assert many.gradients <= few.gradients
    assert many.optimiser <= few.optimiser
    assert many.step <= few.step


def test_activations_by_hand() -> None:
    """One layer of width 4, heads 4, keys 2, MLP 8: 4 x 4 + 2 x 4 + 2 x 2 + 4 x 8 = 60 features in the model's type, 8
    in float32, a mask of 3 and the last norm's 4 + 4."""
    layers = Layers(1, 4, 4, 2, 8, gated=True)
    assert layers.kept() == (60, 8)
    assert activations.stack(layers, rows=2, positions=3, width=4) == 6 * 4 * (60 + 8 + 3 + 8)
    assert activations.stack(layers, rows=2, positions=3, width=2) == 6 * (2 * 60 + 4 * 8 + 2 * 3 + 4 * 4 + 2 * 4)
    crossing = Layers(3, 4, 4, 4, 8, crosses=True)
    assert activations.across(crossing, rows=2, positions=5, width=4) == 3 * 2 * 5 * 2 * 4 * 4
    assert activations.across(layers, rows=2, positions=5, width=4) == 0


def test_a_micro_batch_is_no_larger_than_a_ranks_share() -> None:
    """32 samples on 2 ranks: 16 rows of 2 clips and one that is cut; 10 + 50 + 20 positions."""
    batch = batch_of(recipe(micro_batch_size=64, workers=2), sizes(), seconds=2.0)
    assert (batch.rows, batch.clips, batch.positions, batch.completion) == (16, 3, 80, 20)
    shorter = recipe(micro_batch_size=64)
    shorter.rollout.max_tokens = 70
    assert batch_of(shorter, sizes(), 2.0).positions == 70


def test_a_learner_by_hand() -> None:
    found = learner_memory(recipe(micro_batch_size=8), sizes(), clips=5).host
    assert found["weights"] == 4 * 1500
    assert found["gradients"] == 4 * 1200
    assert found["optimiser"] == 8 * 1200
    assert found["reference"] == 0
    assert found["clips"] == 5 * 50 * 6 * 4
    layers = activations.stack(sizes().dimensions.decoder, 8, 80, 4)
    assert found["activations"] == layers + 8 * 20 * 25 * 24
    assert found["heap"] == layers
    assert found["buffers"] == 0
    assert found["process"] == PROCESS["learner"]


def test_clips_are_features_where_the_encoder_learns_or_weights_are_divided() -> None:
    assert learner_memory(recipe(freeze_encoder=False), sizes(), clips=5).host["clips"] == 5 * 200 * 80 * 4
    assert learner_memory(recipe(zero_stage=3), sizes(), clips=5).host["clips"] == 5 * 200 * 80 * 4
    assert learner_memory(recipe(), sizes(), clips=10**6).host["clips"] == min(KEPT_CLIPS, 40 * 4) * 50 * 6 * 4


def test_a_reference_is_held_for_a_kl_without_lora() -> None:
    with_kl, with_lora = recipe(), recipe(lora=LoraConfig(rank=4))
    with_kl.algorithm = with_lora.algorithm = GRPO(kl_coef=0.04)
    assert learner_memory(with_kl, sizes()).host["reference"] == 4 * 1500
    assert learner_memory(with_lora, sizes(lora=64)).host["reference"] == 0
    without = recipe()
    without.algorithm = CISPO()
    assert not has_reference(without)


def test_a_learner_on_a_gpu_has_its_process_on_the_machine() -> None:
    found = learner_memory(recipe(gpus=1), sizes())
    assert found.device["process"] == CUDA_CONTEXT
    assert found.host == {"process": PROCESS["learner"], "weights": 4 * 1500, "sync": 2 * 4 * 1500}


def test_a_rollout_worker_by_hand() -> None:
    """On a CPU the head's 200 weights are there twice."""
    found = rollout_memory(recipe(), sizes())
    assert found.host["weights"] == 4 * (1500 + 200)
    assert found.host["KV cache"] == GIB // 2
    assert found.host["clips"] == BATCHED_TOKENS[False] * 8 * 4
    assert found.host["sync"] == 2 * 4 * 1500
    assert found.device == {}
    on_gpu = recipe()
    on_gpu.rollout.gpus = 1
    assert rollout_memory(on_gpu, sizes()).device["weights"] == 4 * 1500


def test_a_sync_of_lora_sends_lora() -> None:
    asked = recipe(lora=LoraConfig(rank=4))
    assert rollout_memory(asked, sizes(lora=64, served=True)).host["sync"] == 2 * 4 * 64
    assert rollout_memory(asked, sizes(lora=64, served=False)).host["sync"] == 2 * 4 * 1500


def test_the_rewards_are_their_processes() -> None:
    config = recipe()
    config.rewards = [RewardConfig(fn="a:b"), RewardConfig(fn="a:c", concurrency=3)]
    assert reward_memory(config).on_host == PROCESS["reward"] + 4 * REWARD_CHILD


learners = st.builds(
    LearnerConfig,
    workers=st.integers(1, 64),
    zero_stage=st.integers(0, 3),
    micro_batch_size=st.integers(1, 256),
    gpus=st.integers(0, 1),
    freeze_encoder=st.booleans(),
    lora=st.builds(LoraConfig, rank=st.sampled_from([0, 8])),
    activation_checkpointing=st.booleans(),
    optimizer=st.sampled_from(["adamw", "sgd"]),
    micro_batch_tokens=st.sampled_from([None, 64, 500]),
    micro_batch_seconds=st.sampled_from([None, 3.0, 30.0]),
)
# A decoder smaller than the head of a critic on a trunk would be none.
models = st.builds(sizes, decoder=st.integers(10**7, 10**10), lora=st.sampled_from([0, 10**6]), served=st.booleans())


@given(learners, models, st.sampled_from(["float32", "bfloat16"]), st.floats(0, 1))
def test_what_asks_for_less_never_takes_more(config: LearnerConfig, model: Sizes, dtype: str, kl: float) -> None:
    asked = recipe()
    asked.learner, asked.backbone.dtype, asked.algorithm.kl_coef = config, dtype, kl
    found = learner_memory(asked, model)
    if config.micro_batch_size > 1:
        smaller = replace(config, micro_batch_size=config.micro_batch_size // 2)
        changed = learner_memory(replace(asked, learner=smaller), model)
        assert changed.on_device <= found.on_device
        assert changed.on_host <= found.on_host
    if config.zero_stage:
        wider = learner_memory(replace(asked, learner=replace(config, workers=config.workers * 2)), model)
        assert wider.on_device <= found.on_device
        assert wider.on_host <= found.on_host
    for less in ({"activation_checkpointing": True}, {"optimizer": "sgd"}, {"micro_batch_tokens": 64}):
        assert learner_memory(replace(asked, learner=replace(config, **less)), model).on_host <= found.on_host  # type: ignore[arg-type]
    copy, trunk = (learner_memory(replace(asked, algorithm=PPO(critic=kind)), model) for kind in ("copy", "trunk"))
    assert trunk.on_device <= copy.on_device
    assert trunk.on_host <= copy.on_host
    without = replace(asked, algorithm=GRPO(kl_coef=0.0))
    assert learner_memory(without, model).on_host <= found.on_host


@given(st.floats(0.01, 100), st.integers(1, 4096), models)
def test_a_smaller_cache_and_fewer_sequences_never_take_more(cache: float, sequences: int, model: Sizes) -> None:
    asked, less = recipe(), recipe()
    asked.rollout.kv_cache_gib, asked.rollout.max_sequences = cache, sequences
    less.rollout.kv_cache_gib, less.rollout.max_sequences = cache / 2, max(1, sequences // 2)
    assert rollout_memory(less, model).on_host <= rollout_memory(asked, model).on_host


def test_parts_add_up_to_the_model() -> None:
    asked = recipe(lora=LoraConfig(rank=8))
    found = sizes_of(asked)
    assert sum(found.total.values()) == found.parameters == found.weights + found.total["LoRA"]
    assert found.trained == found.trainable["LoRA"] == found.total["LoRA"] > 0
    assert sizes_of(recipe(freeze_encoder=False)).trained == found.weights
    # An untied head of 663 tokens and width 128, as backbone.tiny has by default.
    assert found.total["head"] == found.total["embedding"] == found.head == 663 * 128


@pytest.mark.parametrize("targets", [["q_proj"], ["q_proj", "up_proj"]])
def test_lora_is_rank_times_both_sides_of_each_layer(targets: list[str]) -> None:
    """Queries 128 x 128, MLP 128 x 384, in four layers."""
    sides = {"q_proj": 128 + 128, "up_proj": 128 + 384}
    found = sizes_of(recipe(lora=LoraConfig(rank=8, targets=targets)))
    assert found.total["LoRA"] == 4 * 8 * sum(sides[target] for target in targets)
