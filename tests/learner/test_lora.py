"""The real DeepSpeed learner with LoRA: it alone learns, the loss stays law 5's, what is sent and saved is whole."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp

from policies.load import load_adapter
from policies.lora import add_lora, is_lora, lora_weights
from policies.policy import Policy
from policies.weights import WeightUpdate, checksum
from rlhf_platform.errors import SyncError
from rlhf_platform.learner import engine as engines
from rlhf_platform.learner.clips import Clips
from rlhf_platform.learner.engine import deepspeed_config
from rlhf_platform.learner.learner import Learner
from rlhf_platform.learner.process_group import Rendezvous, free_port
from rlhf_platform.learner.samples import TrainSample
from rlhf_platform.recipe.algorithms import GRPO
from rlhf_platform.recipe.backbone import BackboneConfig
from rlhf_platform.recipe.schema import LearnerConfig, LoraConfig, Recipe
from rlhf_platform.train.sync import sync
from rlhf_platform.types import Prompt, Sample, StopReason
from rollout.engine import RolloutEngine, SamplingSettings
from tests.layouts import LAYOUTS

LORA = LoraConfig(rank=3, alpha=6.0)


def recipe(adapter: str, **learner: object) -> Recipe:
    config = Recipe(name="test", backbone=BackboneConfig(adapter=adapter))
    config.learner = replace(LearnerConfig(learning_rate=1e-2, lora=LORA), **learner)  # type: ignore[arg-type]
    config.algorithm = GRPO(kl_coef=0.1)
    return config


def samples_for(clips: list[Prompt], adapter: str, model: Path) -> list[TrainSample]:
    """Eight samples of different lengths, two of each clip."""
    allowed = load_adapter(adapter, model).completion_token_ids
    made = []
    for i in range(8):
        tokens = tuple(allowed[(7 * i + 3 * k) % len(allowed)] for k in range(1 + (5 * i) % 7))
        sample = Sample(clips[i // 2], tokens, (-4.0,) * len(tokens), "", StopReason.EOS, 0)
        made.append(TrainSample(sample, advantage=1.0 - 0.3 * i, counts=i != 5))
    return made


def _train(rank: int, port: int, config: Recipe, model: Path, samples: list[TrainSample], out: Path) -> None:
    torch.set_num_threads(1)
    world, stage = config.learner.workers, config.learner.zero_stage
    # DeepSpeed leaves parameters as small as these whole at ZeRO 3 unless told otherwise.
    split = {"zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 0}}
    engines.deepspeed_config = lambda learner, dtype: deepspeed_config(learner, dtype) | split
    learner = Learner(config, model, Rendezvous(rank, world, "127.0.0.1", port, timeout=120))
    share = len(samples) // world
    start = learner.weights(version=0)
    metrics = [learner.train(samples[rank * share : (rank + 1) * share]) for _ in range(2)]
    update = learner.weights(version=1)
    learner.save(out / "saved")
    logprobs = learner.logprobs([s.sample for s in samples])
    if rank == 0:
        found = {"start": dict(start.tensors), "sent": dict(update.tensors), "rank": update.lora_rank}
        torch.save(found | {"metrics": metrics, "logprobs": logprobs}, out / "found.pt")
        if stage == 0:
            torch.save(dict(learner._policy.model.named_parameters()), out / "parameters.pt")
    torch.distributed.destroy_process_group()


def trained(adapter: str, model: Path, clips: list[Prompt], out: Path, **learner: object) -> dict[str, Any]:
    """What two RL steps in processes of their own leave behind."""
    config = recipe(adapter, **learner)
    arguments = (free_port(), config, model, samples_for(clips, adapter, model), out)
    mp.spawn(_train, arguments, nprocs=config.learner.workers, join=True)
    return torch.load(out / "found.pt")


@pytest.fixture(scope="module")
def one_rank(
    tiny_checkpoint: Path, clips: list[Prompt], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("one")
    return trained("qwen3_asr", tiny_checkpoint, clips, out, micro_batch_size=8), out


def test_a_step_moves_lora_and_nothing_else(one_rank: tuple[dict[str, Any], Path], tiny_checkpoint: Path) -> None:
    parameters = torch.load(one_rank[1] / "parameters.pt")
    start = dict(load_adapter("qwen3_asr", tiny_checkpoint).load_model(torch.float32).named_parameters())
    for name, parameter in parameters.items():
        if not is_lora(name):
            assert torch.equal(parameter, start[name.replace(".base_layer", "")]), name
    assert one_rank[0]["rank"] == LORA.rank
    assert sum(p.numel() for name, p in parameters.items() if is_lora(name)) == sum(
        tensor.numel() for tensor in one_rank[0]["sent"].values()
    )
    for name, tensor in one_rank[0]["sent"].items():
        moved = not torch.equal(tensor, one_rank[0]["start"][name])
        assert moved, name


def test_the_kl_is_to_the_policy_without_lora(one_rank: tuple[dict[str, Any], Path]) -> None:
    first, second = one_rank[0]["metrics"]
    assert first["kl"] == 0.0
    assert second["kl"] > 1e-4


def assert_same(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert left["sent"].keys() == right["sent"].keys()
    for name, tensor in left["sent"].items():
        # A hundredth of the learning rate: AdamW blows up rounding where a gradient is near its epsilon.
        torch.testing.assert_close(tensor, right["sent"][name], rtol=0, atol=2e-4, msg=f"{name} differs")
    for ours, theirs in zip(left["metrics"], right["metrics"], strict=True):
        # How much of a forward is padding does depend on who shares it.
        ours, theirs = ({name: x for name, x in each.items() if name != "padding_share"} for each in (ours, theirs))
        assert ours == pytest.approx(theirs, rel=2e-3, abs=1e-6)


@pytest.mark.parametrize(
    ("ranks", "stage", "micro"),
    [
        (1, 0, 3),
        pytest.param(2, 2, 3, marks=pytest.mark.slow),
        pytest.param(2, 3, 4, marks=pytest.mark.slow),
    ],
    ids=["micro-batches", "two ranks", "zero 3"],
)
def test_the_update_does_not_depend_on_micro_batches_ranks_or_zero_stage(
    ranks: int,
    stage: int,
    micro: int,
    one_rank: tuple[dict[str, Any], Path],
    tiny_checkpoint: Path,
    clips: list[Prompt],
    tmp_path: Path,
) -> None:
    found = trained(
        "qwen3_asr", tiny_checkpoint, clips, tmp_path, workers=ranks, zero_stage=stage, micro_batch_size=micro
    )
    assert_same(found, one_rank[0])
    assert_saved("qwen3_asr", found, tiny_checkpoint, tmp_path, clips)


@pytest.mark.parametrize("stage", [0, pytest.param(3, marks=pytest.mark.slow)])
def test_where_vllm_takes_no_lora_all_weights_are_sent_with_lora_merged(
    stage: int, clips: list[Prompt], tmp_path: Path
) -> None:
    LAYOUTS["whisper"].build(tmp_path / "start", True)
    found = trained("whisper", tmp_path / "start", clips, tmp_path, workers=2, zero_stage=stage)
    assert found["rank"] == 0
    assert_saved("whisper", found, tmp_path / "start", tmp_path, clips)
    adapter = load_adapter("whisper", tmp_path / "saved")
    saved = dict(adapter.vllm_weights(adapter.load_model(torch.float32)))
    assert saved.keys() == found["sent"].keys()
    for name, weight in saved.items():
        assert torch.equal(weight, found["sent"][name]), name


def assert_saved(name: str, found: dict[str, Any], start: Path, out: Path, clips: list[Prompt]) -> None:
    """The checkpoint is whole, plain, apart from the start in LoRA's layers alone, and scores as the learner did."""
    from rlhf_platform.learner.verify import checkpoint_difference

    adapter = load_adapter(name, out / "saved")
    before = dict(load_adapter(name, start).load_model(torch.float32).named_parameters())
    after = dict(adapter.load_model(torch.float32).named_parameters())
    assert {n: p.shape for n, p in after.items()} == {n: p.shape for n, p in before.items()}
    moved = {n for n, p in after.items() if not torch.equal(p, before[n])}
    assert {n.rpartition(".")[0].rpartition(".")[2] for n in moved} == set(adapter.lora_targets)
    samples = [
        replace(item.sample, logprobs=logprobs)
        for item, logprobs in zip(samples_for(clips, name, start), found["logprobs"], strict=True)
    ]
    assert checkpoint_difference(recipe(name), out / "saved", samples) < 1e-4


def test_a_sync_that_leaves_lora_out_is_caught(
    tiny_checkpoint: Path, clips: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 4, with the real engine: version and checksum are right, and only the probe can tell."""
    adapter = load_adapter("qwen3_asr", tiny_checkpoint)
    model = adapter.load_model(torch.float32)
    add_lora(adapter, model, LORA, "learner.lora", seed=0)
    policy = Policy(adapter, model, 1.0, freeze_encoder=True).eval()
    kept = Clips(adapter, policy, encode_once=False)
    engine = RolloutEngine("qwen3_asr", tiny_checkpoint, "float32", 256, 32, kv_cache_gib=0.1, lora_rank=LORA.rank)

    def weights(version: int) -> WeightUpdate:
        """Of a policy that has learnt since the version before."""
        torch.manual_seed(version)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if is_lora(name):
                    parameter.copy_(0.2 * torch.randn_like(parameter))
        tensors = {name: value.clone() for name, value in lora_weights(adapter, model)}
        return WeightUpdate(version, tensors, checksum(tensors), LORA.rank)

    @torch.no_grad()
    def logprobs(samples: list[Sample]) -> list[list[float]]:
        found = policy(*kept.batch(samples))[0]
        return [found[row, : len(s.tokens)].tolist() for row, s in enumerate(samples)]

    def probe(prompts: list[Prompt], seed: int) -> list[list[Sample]]:
        return [engine.generate(prompts, SamplingSettings(1, 1.0, 10, seed))]

    learners: Any = SimpleNamespace(weights=weights, logprobs=logprobs)
    rollouts: Any = SimpleNamespace(load_weights=lambda update: [engine.load_weights(update)], probe=probe)
    assert sync(learners, rollouts, 1, clips, "float32").difference < 1e-4
    monkeypatch.setattr(engine, "_replace_lora", lambda update: None)
    with pytest.raises(SyncError, match=r"^weight sync: after version 2 rollout and learner differ by"):
        sync(learners, rollouts, 2, clips, "float32")
    engine.close()
