"""The gradient of a step that rehearses: RL's and the supervised one's, however both are split."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

from policies.load import load_adapter
from policies.policy import Policy
from rlhf_platform.learner.clips import Clips
from rlhf_platform.learner.micro_batches import MicroBatch, micro_batches, packed
from rlhf_platform.learner.objective import Coefficients, counted, summed_loss
from rlhf_platform.learner.rehearsal import Rehearsal, reference_sample
from rlhf_platform.learner.samples import TrainSample
from rlhf_platform.learner.sft import TranscriptCollator
from rlhf_platform.recipe.algorithms import GRPO
from rlhf_platform.recipe.schema import LearnerConfig
from rlhf_platform.types import Prompt, Sample, StopReason

ALGORITHM = GRPO(kl_coef=0.0)
WHOLE = LearnerConfig(micro_batch_size=64, micro_batch_tokens=None, micro_batch_seconds=None, packing=False)
WEIGHT = 0.7


@pytest.fixture(scope="module", autouse=True)
def one_rank() -> Iterator[None]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def policy(tiny_checkpoint: Path) -> Policy:
    adapter = load_adapter("qwen3_asr", tiny_checkpoint)
    return Policy(adapter, adapter.load_model(torch.float64), 1.0, freeze_encoder=False).eval()


def drawn(clips: list[Prompt]) -> list[TrainSample]:
    """What RL learns from."""
    made = []
    for number, prompt in enumerate(clips):
        for k in range(2):
            tokens = tuple(40 + (7 * number + 3 * i + k) % 200 for i in range(2 + number + k))
            sample = Sample(prompt, tokens, (-5.0,) * len(tokens), "", StopReason.EOS, 0)
            made.append(TrainSample(sample, advantage=(-1.0) ** k * (1 + number), counts=True))
    return made


def gradients(
    policy: Policy, clips: list[Prompt], config: LearnerConfig, rl: bool = True, weight: float = 0.0
) -> tuple[list[Tensor], float]:
    """Of all weights after the parts of both losses were added up one by one, and the rehearsal's mean."""
    made, samples = Clips(policy.adapter, policy, encode_once=False), drawn(clips)
    bins = packed([s.sample for s in samples], made, config)
    trained = list(micro_batches(samples, bins, made, config.packing, lambda _, mask: mask, torch.device("cpu")))
    total = torch.stack([counted(ALGORITHM, micro.mask, ALGORITHM.normalization) for micro in trained]).sum()
    references = [reference_sample(policy.adapter, prompt) for prompt in clips]
    rehearsal = Rehearsal(references, made, config, weight)

    def loss_of(micro: MicroBatch) -> Tensor:
        logprobs, entropy = policy(micro.batch, micro.audio)
        return summed_loss(ALGORITHM, micro, logprobs, entropy, Coefficients(0.0), 16)[0] / total

    policy.zero_grad()
    for micro in trained if rl else []:
        loss_of(micro).backward()
    for part in rehearsal.parts if weight else []:
        rehearsal.loss(policy, part).backward()
    return [p.grad.clone() for p in policy.parameters() if p.grad is not None], rehearsal.mean()


def assert_same(ours: list[Tensor], theirs: list[Tensor]) -> None:
    # The weights are float64; log-probs are computed in float32.
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def supervised(policy: Policy, clips: list[Prompt]) -> tuple[list[Tensor], float]:
    """The gradient of the warm start's own batch: PyTorch's cross-entropy of Transformers' logits."""
    rows = [{"row": row} for row in range(len(clips))]
    batch = TranscriptCollator(policy.adapter, clips, spec_augment=False)(rows)
    inputs = {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}
    labels = inputs.pop("labels")[:, 1:]
    policy.zero_grad()
    logits = policy.model(**inputs).logits[:, :-1].masked_fill(~policy.allowed[-1], -torch.inf)
    loss = cross_entropy(logits[labels != -100], labels[labels != -100])
    loss.backward()
    return [p.grad.clone() for p in policy.parameters() if p.grad is not None], loss.item()


def test_the_gradient_is_rls_and_the_warm_starts_added_up(policy: Policy, clips: list[Prompt]) -> None:
    both, mean = gradients(policy, clips, WHOLE, weight=WEIGHT)
    rl, _ = gradients(policy, clips, WHOLE)
    expected, nats = supervised(policy, clips)
    assert_same(both, [a + WEIGHT * b for a, b in zip(rl, expected, strict=True)])
    assert mean == pytest.approx(nats, rel=1e-5)
    assert max(float(gradient.abs().max()) for gradient in rl) > 1e-2
    assert max(float(gradient.abs().max()) for gradient in expected) > 1e-2


def test_it_does_not_depend_on_the_split(policy: Policy, clips: list[Prompt]) -> None:
    whole, nats = gradients(policy, clips, WHOLE, weight=WEIGHT)

    @settings(max_examples=5, deadline=None, database=None)
    @given(st.integers(1, 5), st.none() | st.integers(64, 400), st.booleans())
    def holds(size: int, tokens: int | None, packing: bool) -> None:
        split = replace(WHOLE, micro_batch_size=size, micro_batch_tokens=tokens, packing=packing)
        found, mean = gradients(policy, clips, split, weight=WEIGHT)
        assert_same(found, whole)
        assert mean == pytest.approx(nats, rel=1e-5)

    holds()
