"""Ranks with and without audio: none waits for another, and the update is that of one rank with all samples (law 5)."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

import policies.policy
from rlhf_platform.learner.learner import Learner
from rlhf_platform.learner.process_group import Rendezvous, free_port
from rlhf_platform.learner.samples import TrainSample
from rlhf_platform.recipe.algorithms import GRPO
from rlhf_platform.recipe.schema import LearnerConfig, Recipe
from rlhf_platform.types import Prompt, Sample, StopReason

Found = tuple[dict[str, torch.Tensor], dict[str, float]]


def recipe(ranks: int, **learner: object) -> Recipe:
    """Plain SGD with a large step: what moves is the gradient, to scale."""
    config = Recipe(name="test")
    config.algorithm = GRPO(kl_coef=0.1)
    config.learner = replace(
        LearnerConfig(workers=ranks, learning_rate=1.0, optimizer="sgd", max_grad_norm=1e9, micro_batch_size=2),
        **learner,  # type: ignore[arg-type]
    )
    return config


def samples_for(clips: list[Prompt]) -> list[TrainSample]:
    """Eight samples, two of each prompt: the first four hear a clip, the last four answer a text."""
    written = [Prompt(f"written{i}", "", "", "en", metadata={"text": text}) for i, text in enumerate(("alpha", "echo"))]
    made = []
    for i, prompt in enumerate([*clips[:2], *written]):
        for k in range(2):
            tokens = tuple(40 + (7 * i + 3 * n + 11 * k) % 200 for n in range(2 + i + k))
            sample = Sample(prompt, tokens, (-5.5,) * len(tokens), "", StopReason.EOS, 0)
            made.append(TrainSample(sample, advantage=1.0 - 1.5 * k + 0.2 * i, counts=True))
    return made


def _train(
    rank: int, world: int, port: int, config: Recipe, model: Path, samples: list[TrainSample], tiled: bool, out: Path
) -> None:
    torch.set_num_threads(1)
    if tiled:
        policies.policy.TILED_FROM = 1  # the head of the tiny backbone, as that of a large vocabulary
    learner = Learner(config, model, Rendezvous(rank, world, "127.0.0.1", port, timeout=60))
    share = len(samples) // world
    metrics = learner.train(samples[rank * share : (rank + 1) * share])
    update = learner.weights(version=1)
    if rank == 0:
        torch.save((dict(update.tensors), metrics), out)
    torch.distributed.destroy_process_group()


def trained(model: Path, clips: list[Prompt], out: Path, ranks: int, tiled: bool = False, **learner: object) -> Found:
    arguments = (ranks, free_port(), recipe(ranks, **learner), model, samples_for(clips), tiled, out)
    mp.spawn(_train, arguments, nprocs=ranks, join=True)
    found: Found = torch.load(out)
    return found


@pytest.fixture(scope="module")
def one_rank(tiny_checkpoint: Path, clips: list[Prompt], tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Found]:
    """The update of one rank with all samples, by whether the encoder is frozen."""
    out = tmp_path_factory.mktemp("one") / "out.pt"
    return {
        frozen: trained(tiny_checkpoint, clips, out, ranks=1, micro_batch_size=8, freeze_encoder=frozen)
        for frozen in (False, True)
    }


def assert_same(found: Found, expected: Found) -> None:
    assert found[0].keys() == expected[0].keys()
    for name, tensor in found[0].items():
        torch.testing.assert_close(tensor, expected[0][name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    of_the_split = "padding_share"
    metrics = {name: value for name, value in expected[1].items() if name != of_the_split}
    assert {n: v for n, v in found[1].items() if n != of_the_split} == pytest.approx(metrics, rel=2e-3, abs=1e-6)


@pytest.mark.parametrize(
    ("stage", "frozen", "spared"),
    [
        pytest.param(2, False, False, id="2", marks=pytest.mark.slow),
        pytest.param(3, False, False, id="3"),
        pytest.param(2, True, False, id="2-frozen", marks=pytest.mark.slow),
        pytest.param(3, True, False, id="3-frozen", marks=pytest.mark.slow),
        pytest.param(3, False, True, id="3-spared", marks=pytest.mark.slow),
    ],
)
def test_a_rank_without_any_audio_keeps_no_other_waiting_and_changes_no_update(
    stage: int,
    frozen: bool,
    spared: bool,
    one_rank: dict[bool, Found],
    tiny_checkpoint: Path,
    clips: list[Prompt],
    tmp_path: Path,
) -> None:
    """`spared`: with the head in tiles and activations computed anew, which at ZeRO 3 meet the weights another way."""
    settings = {"zero_stage": stage, "freeze_encoder": frozen, "activation_checkpointing": spared}
    found = trained(tiny_checkpoint, clips, tmp_path / "out.pt", ranks=2, tiled=spared, **settings)
    assert_same(found, one_rank[frozen])


def test_the_update_moves_the_encoder_too(one_rank: dict[bool, Found], tiny_checkpoint: Path) -> None:
    from policies.load import load_adapter

    adapter = load_adapter("qwen3_asr", tiny_checkpoint)
    start = dict(adapter.vllm_weights(adapter.load_model(torch.float32)))
    for frozen, (weights, _) in one_rank.items():
        moved = [n for n, t in weights.items() if adapter.is_encoder(n) and (t - start[n]).abs().max() > 1e-3]
        assert bool(moved) != frozen
