"""The real DeepSpeed learner against the formula; `test_law5.py` and `test_zero.py` split and deal out its batches."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from rlhf_platform.learner.learner import Learner
from rlhf_platform.learner.process_group import Rendezvous, free_port
from rlhf_platform.learner.samples import TrainSample
from rlhf_platform.recipe.algorithms import GRPO
from rlhf_platform.recipe.schema import LearnerConfig, Recipe
from rlhf_platform.types import Prompt, Sample, StopReason


def recipe(**learner: object) -> Recipe:
    config = Recipe(name="test")
    config.learner = replace(LearnerConfig(learning_rate=1e-2, freeze_encoder=True), **learner)  # type: ignore[arg-type]
    config.algorithm = GRPO(kl_coef=0.1)
    return config


def samples_for(clips: list[Prompt]) -> list[TrainSample]:
    """Sixteen samples of different lengths, four of each clip, one of them without a reward."""
    made = []
    for i in range(16):
        tokens = tuple(40 + (7 * i + 3 * k) % 200 for k in range(1 + (5 * i) % 7))
        # The behaviour log-probs of another program: off by some tenths, so that importance weights are not 1.
        logprobs = tuple(-5.0 - 0.3 * math.sin(i + k) for k in range(len(tokens)))
        sample = Sample(clips[i // 4], tokens, logprobs, "", StopReason.EOS, 0)
        made.append(TrainSample(sample, advantage=math.cos(i), counts=i != 5))
    return made


def _train(
    rank: int, world: int, port: int, config: Recipe, model: Path, samples: list[TrainSample], steps: int, out: Path
) -> None:
    torch.set_num_threads(1)
    learner = Learner(config, model, Rendezvous(rank, world, "127.0.0.1", port, timeout=120))
    share = len(samples) // world
    metrics = [learner.train(samples[rank * share : (rank + 1) * share]) for _ in range(steps)]
    update = learner.weights(version=1)
    if rank == 0:
        torch.save({"weights": dict(update.tensors), "metrics": metrics}, out)
    torch.distributed.destroy_process_group()


def trained(
    model: Path, clips: list[Prompt], out: Path, ranks: int = 1, steps: int = 2, **learner: object
) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    """Weights and metrics after some RL steps in processes of their own, as the actors are."""
    arguments = (ranks, free_port(), recipe(workers=ranks, **learner), model, samples_for(clips), steps, out)
    mp.spawn(_train, arguments, nprocs=ranks, join=True)
    found = torch.load(out)
    return found["weights"], found["metrics"]


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    for name in left:
        # A thousandth of the learning rate; AdamW blows up rounding in the few places where a gradient is near its
        # epsilon, up to the learning rate itself.
        off = (left[name] - right[name]).abs() > 1e-5
        assert int(off.sum()) <= max(2, off.numel() // 1000), f"{int(off.sum())} of {off.numel()} in {name} differ"


def assert_same_metrics(left: list[dict[str, float]], right: list[dict[str, float]]) -> None:
    """The gradient's norm among them: AdamW's step alone would not show a loss that is off by a factor."""
    for ours, theirs in zip(left, right, strict=True):
        # How much of a forward is padding does depend on who shares it.
        ours, theirs = ({name: x for name, x in each.items() if name != "padding_share"} for each in (ours, theirs))
        assert ours == pytest.approx(theirs, rel=2e-3, abs=1e-6)


@pytest.fixture(scope="module")
def one_rank(
    tiny_checkpoint: Path, clips: list[Prompt], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    return trained(tiny_checkpoint, clips, tmp_path_factory.mktemp("one") / "out.pt", micro_batch_size=16)


def test_training_moves_the_decoder_and_leaves_a_frozen_encoder_alone(
    one_rank: tuple[dict[str, torch.Tensor], list[dict[str, float]]], tiny_checkpoint: Path
) -> None:
    from policies.load import load_adapter

    adapter = load_adapter("qwen3_asr", tiny_checkpoint)
    start = dict(adapter.vllm_weights(adapter.load_model(torch.float32)))
    for name, tensor in one_rank[0].items():
        assert torch.equal(tensor, start[name]) == adapter.is_encoder(name), name


def test_the_update_does_not_depend_on_the_micro_batch_split(
    one_rank: tuple[dict[str, torch.Tensor], list[dict[str, float]]],
    tiny_checkpoint: Path,
    clips: list[Prompt],
    tmp_path: Path,
) -> None:
    weights, metrics = trained(tiny_checkpoint, clips, tmp_path / "out.pt", micro_batch_size=3)
    assert_same(weights, one_rank[0])
    assert_same_metrics(metrics, one_rank[1])


def test_the_first_step_is_the_gradient_of_the_formula_computed_by_hand(
    tiny_checkpoint: Path, clips: list[Prompt], tmp_path: Path
) -> None:
    """One SGD-like probe: AdamW's first step moves each weight by the learning rate against the gradient's sign."""
    from policies.load import load_adapter

    config = recipe()
    adapter = load_adapter("qwen3_asr", tiny_checkpoint)
    model = adapter.load_model(torch.float64).eval()
    allowed = torch.tensor(adapter.completion_token_ids)
    count, loss = 0, torch.zeros((), dtype=torch.float64)
    for item in samples_for(clips):
        if not item.counts:
            continue
        sample, prompt = item.sample, adapter.encode(item.sample.prompt)
        ids = torch.tensor([(*prompt.token_ids, *sample.tokens)])
        logits = model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            input_features=prompt.clips[0].features[None].double(),
            input_features_mask=prompt.clips[0].mask[None],
        ).logits[0, len(prompt.token_ids) - 1 : -1]
        scores = torch.full_like(logits, -torch.inf)
        scores[:, allowed] = logits[:, allowed]
        logprobs = scores.log_softmax(-1)[range(len(sample.tokens)), list(sample.tokens)]
        behaviour = torch.tensor(sample.logprobs, dtype=torch.float64)
        weight = (logprobs.detach() - behaviour).exp().clamp(max=config.algorithm.importance_cap)
        # At the first step old = reference = policy: the ratio is 1, the KL and its gradient are 0.
        loss = loss - (weight * (logprobs - logprobs.detach()).exp() * item.advantage).mean()
        count += 1
    (loss / count).backward()  # type: ignore[no-untyped-call]

    weights, metrics = trained(tiny_checkpoint, clips, tmp_path / "out.pt", steps=1, max_grad_norm=1e9)
    squares = [p.grad.square().sum() for n, p in model.named_parameters() if not adapter.is_encoder(n)]  # type: ignore[union-attr]
    assert metrics[0]["grad_norm"] == pytest.approx(float(torch.stack(squares).sum().sqrt()), rel=1e-3)
    for name, parameter in model.named_parameters():
        if adapter.is_encoder(name):
            continue
        assert parameter.grad is not None
        moved = weights[adapter.vllm_name(name)].double() - parameter.detach()
        clear = parameter.grad.abs() > 1e-5  # far above AdamW's epsilon and float32 rounding
        expected = -config.learner.learning_rate * parameter.grad.sign()
        torch.testing.assert_close(
            moved[clear], expected[clear], rtol=2e-2, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )
