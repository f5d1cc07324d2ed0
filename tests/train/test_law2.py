"""Law 2 from plug-in to loss: samples that failed change no gradient, whoever and wherever in their group they are."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rewards.algebra import combine
from rewards.pool import RewardPool
from rewards.types import RewardInput
from rlhf_platform.learner.learner import Learner
from rlhf_platform.learner.micro_batches import MicroBatch
from rlhf_platform.learner.objective import Coefficients, counted, sees_first, summed_loss
from rlhf_platform.learner.process_group import Rendezvous, free_port
from rlhf_platform.learner.samples import Seen
from rlhf_platform.recipe.algorithms import NORMALIZATIONS, RL_ALGORITHMS, OnlineConfig, OnlineDPO
from rlhf_platform.recipe.schema import LearnerConfig, Recipe, RewardConfig, ScoringConfig
from rlhf_platform.train.advantages import advantages_of
from rlhf_platform.types import Failed, Prompt, Sample, ScoredSample, StopReason

REWARD = """
import os
def reward(sample):
    match sample.text:
        case "raise": raise ValueError
        case "nan": return float("nan")
        case "none": return None
        case "list": return [1.0]
        case "exit": os._exit(1)
    return float(sample.text)
"""
ILLS = ("raise", "nan", "none", "list")
GROUP, TOKENS, VOCABULARY = 3, 5, 7


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RewardPool]:
    folder = tmp_path_factory.mktemp("reward")
    (folder / "mine.py").write_text(REWARD)
    with RewardPool.of("mine.py:reward", folder) as made:
        yield made


def scored_by(pool: RewardPool, samples: Sequence[Sample], group_size: int, normalize: str) -> list[ScoredSample]:
    """Samples whose texts say what the reward does, with what plug-in and algebra make of them."""
    answers = pool.call([RewardInput(s.prompt.id, s.text) for s in samples])
    scoring = ScoringConfig(normalize=normalize)
    outcomes = combine([RewardConfig(fn="mine.py:reward")], scoring, [answers], group_size, 1)
    return list(map(ScoredSample, samples, outcomes))


def completion(prompt: Prompt, number: int, text: str) -> Sample:
    tokens = tuple((3 * number + 5 * k) % VOCABULARY for k in range(1 + number % TOKENS))
    logprobs = tuple(-1.5 - 0.1 * ((number + k) % 5) for k in range(len(tokens)))
    return Sample(prompt, tokens, logprobs, text, StopReason.EOS, 0)


def seen_in(sample: Sample) -> Seen:
    """A learner's view that depends on the sample alone; a failed one would shift every mean that it is counted in."""
    behaviour = np.asarray(sample.logprobs, np.float32)
    wave = np.sin(np.asarray(sample.tokens, np.float32) + len(sample.tokens))
    far = 20.0 if sample.text in ILLS else 1.0
    return Seen(
        np.asarray([token != 4 for token in sample.tokens]),
        reference=behaviour - 0.3,
        penalty=far * (0.1 + 0.05 * wave),
        values=far * wave,
    )


def gradient(algorithm: OnlineConfig, scored: Sequence[ScoredSample]) -> Tensor:
    """Of the loss for a policy of one distribution over tokens at each place, in float64."""
    seen = [seen_in(s.sample) for s in scored] if sees_first(algorithm) else None
    samples = advantages_of(scored, algorithm, seen)
    weights = torch.linspace(-1, 1, TOKENS * VOCABULARY, dtype=torch.float64).view(TOKENS, VOCABULARY).requires_grad_()
    every = weights.log_softmax(-1)
    size = (len(samples), TOKENS)
    tokens, sampled, trained, behaviour, advantages = (torch.zeros(size, dtype=torch.float64) for _ in range(5))
    for i, item in enumerate(samples):
        length = len(item.sample.tokens)
        tokens[i, :length] = torch.tensor(item.sample.tokens)
        behaviour[i, :length] = torch.tensor(item.sample.logprobs)
        advantages[i, :length] = torch.as_tensor(item.advantage, dtype=torch.float64)
        sampled[i, :length] = float(item.counts)
        trained[i, :length] = torch.from_numpy(seen_in(item.sample).trained)
    logprobs = every[torch.arange(TOKENS), tokens.long()]
    old = logprobs.detach() + 0.1 * torch.sin(logprobs.detach() * 9)  # the policy has moved: clips act
    mask = sampled * trained
    nothing: Any = None
    micro = MicroBatch(
        [], nothing, None, mask, sampled, advantages, behaviour, old, behaviour - 0.3, values=None, returns=None
    )
    loss, _ = summed_loss(algorithm, micro, logprobs, logprobs, Coefficients(algorithm.kl_coef, 0.01), TOKENS)
    (loss / counted(algorithm, mask, algorithm.normalization).clamp(min=1)).backward()  # type: ignore[no-untyped-call]
    assert weights.grad is not None
    return weights.grad


GROUPS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 20), min_size=GROUP, max_size=GROUP),  # rewards in twentieths
        st.lists(st.tuples(st.integers(0, GROUP), st.sampled_from(ILLS)), min_size=2, max_size=2),
    ),
    min_size=1,
    max_size=3,
)
OF_WHOLE_SAMPLES = ("gspo", "rloo", "online_dpo")


@pytest.mark.parametrize("name", RL_ALGORITHMS)
@settings(max_examples=40)
@given(
    groups=GROUPS, normalization=st.sampled_from(NORMALIZATIONS), normalize=st.sampled_from(["none", "terms", "total"])
)
def test_failed_samples_in_a_batch_change_no_gradient(
    name: str,
    groups: list[tuple[list[int], list[tuple[int, str]]]],
    normalization: str,
    normalize: str,
    pool: RewardPool,
) -> None:
    chosen = "sequence" if name in OF_WHOLE_SAMPLES else normalization
    algorithm = RL_ALGORITHMS[name](group_size=GROUP, normalization=chosen, kl_coef=0.1)
    healthy, mixed = [], []
    for number, (rewards, ills) in enumerate(groups):
        prompt = Prompt(f"p{number}", "clip.wav", "", "en")
        group = [completion(prompt, GROUP * number + i, str(reward / 20)) for i, reward in enumerate(rewards)]
        healthy += group
        for place, ill in ills:
            group = [*group[:place], completion(prompt, 17, ill), *group[place:]]
        mixed += group
    alone = gradient(algorithm, scored_by(pool, healthy, GROUP, normalize))
    larger = replace(algorithm, group_size=GROUP + 2)
    beside = gradient(larger, scored_by(pool, mixed, GROUP + 2, normalize))
    torch.testing.assert_close(beside, alone, rtol=1e-5, atol=1e-6)


Batches = dict[str, list[tuple[OnlineConfig, list[ScoredSample]]]]


def _train(rank: int, port: int, model: Path, batches: Batches, asked: list[Sample], out: Path) -> None:
    torch.set_num_threads(1)
    found: dict[str, list[Any]] = {}
    for name, variants in batches.items():
        config = Recipe(name="test", algorithm=variants[0][0], learner=LearnerConfig(learning_rate=1e-3))
        learner = Learner(config, model, Rendezvous(rank, 1, "127.0.0.1", port, timeout=120))
        engines = [learner._engine, *([learner._critic._engine] if learner._critic else [])]
        parameters = [p for engine in engines for p in engine.module.parameters() if p.requires_grad]
        start = [p.detach().clone() for p in parameters]
        for algorithm, scored in variants:
            for parameter, value in zip(parameters, start, strict=True):
                parameter.data.copy_(value)
            for engine in engines:
                engine._optimizer.state.clear()
            seen = learner.see([s.sample for s in scored]) if sees_first(algorithm) else None
            metrics = learner.train(advantages_of(scored, algorithm, seen))
            found.setdefault(name, []).append((metrics, learner.logprobs(asked)))
    torch.save(found, out)
    torch.distributed.destroy_process_group()


def test_failed_samples_change_no_step_of_the_real_learner(
    pool: RewardPool, tiny_checkpoint: Path, clips: list[Prompt], tmp_path: Path
) -> None:
    """The same metrics, gradient norms among them, and the same policy after two updates, by each algorithm."""
    healthy: list[Sample] = []
    mixed: list[Sample] = []
    for number, prompt in enumerate(clips):
        group = [completion(prompt, 40 + GROUP * number + i, str(((7 * i + number) % 5) / 5)) for i in range(GROUP)]
        group = [replace(s, tokens=tuple(40 + token for token in s.tokens)) for s in group]
        ill = replace(group[0], text=[*ILLS, "exit"][number])
        healthy += group
        mixed += [*group[: number % GROUP], ill, *group[number % GROUP :]]
    batches: Batches = {}
    for name, make in RL_ALGORITHMS.items():
        algorithm = make(group_size=GROUP, kl_coef=0.1, epochs=2, minibatches=1)
        larger = replace(algorithm, group_size=GROUP + 1)
        variants = [scored_by(pool, healthy, GROUP, "none"), scored_by(pool, mixed, GROUP + 1, "none")]
        assert sum(isinstance(s.outcome, Failed) for s in variants[1]) == len(clips)
        batches[name] = list(zip((algorithm, larger), variants, strict=True))
    arguments = (free_port(), tiny_checkpoint, batches, healthy, tmp_path / "out.pt")
    mp.spawn(_train, arguments, nprocs=1, join=True)
    for name, ((ours, policy), (theirs, same)) in torch.load(tmp_path / "out.pt").items():
        # A failed sample still takes its place in a forward; pairs are made without it.
        pads = {"padding_share"} if not isinstance(batches[name][0][0], OnlineDPO) else set()
        assert ours.keys() == theirs.keys()
        for metric in ours.keys() - pads:
            assert ours[metric] == pytest.approx(theirs[metric], rel=2e-3, abs=1e-6), (name, metric)
        assert ours["grad_norm"] > 0, name
        for one, other in zip(policy, same, strict=True):
            assert one == pytest.approx(other, abs=1e-4), name
