"""Law 2 from plug-in to loss: samples that failed change no gradient, whoever and wherever in their group they are."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rewards.algebra import combine
from rewards.pool import RewardPool
from rewards.types import RewardInput
from rlhf_platform.algorithms.normalization import token_shares, units
from rlhf_platform.learner.learner import Learner
from rlhf_platform.learner.process_group import Rendezvous, free_port
from rlhf_platform.learner.samples import TrainSample
from rlhf_platform.learner.objective import token_loss
from rlhf_platform.recipe.algorithms import ALGORITHMS, NORMALIZATIONS, AlgorithmConfig
from rlhf_platform.recipe.schema import LearnerConfig, Recipe, RewardConfig, ScoringConfig
from rlhf_platform.train.loop import advantages_of
from rlhf_platform.types import Prompt, Sample, ScoredSample, StopReason

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


def made_of(
    pool: RewardPool, samples: Sequence[Sample], algorithm: AlgorithmConfig, normalize: str
) -> list[TrainSample]:
    """What the loop makes of samples whose texts say what the reward does: plug-in, algebra, advantages."""
    answers = pool.call([RewardInput(s.prompt.id, s.text) for s in samples])
    scoring = ScoringConfig(normalize=normalize)
    outcomes = combine([RewardConfig(fn="mine.py:reward")], scoring, [answers], algorithm.group_size, 1)
    return advantages_of(list(map(ScoredSample, samples, outcomes)), algorithm)


def completion(prompt: Prompt, number: int, text: str) -> Sample:
    tokens = tuple((3 * number + 5 * k) % VOCABULARY for k in range(1 + number % TOKENS))
    logprobs = tuple(-1.5 - 0.1 * ((number + k) % 5) for k in range(len(tokens)))
    return Sample(prompt, tokens, logprobs, text, StopReason.EOS, 0)


def gradient(algorithm: AlgorithmConfig, samples: Sequence[TrainSample]) -> Tensor:
    """Of the loss for a policy of one distribution over tokens at each place, in float64."""
    weights = torch.linspace(-1, 1, TOKENS * VOCABULARY, dtype=torch.float64).view(TOKENS, VOCABULARY).requires_grad_()
    every = weights.log_softmax(-1)
    tokens, mask, behaviour = (torch.zeros(len(samples), TOKENS, dtype=torch.float64) for _ in range(3))
    for i, item in enumerate(samples):
        length = len(item.sample.tokens)
        tokens[i, :length] = torch.tensor(item.sample.tokens)
        behaviour[i, :length] = torch.tensor(item.sample.logprobs)
        mask[i, :length] = float(item.counts)
    logprobs = every[torch.arange(TOKENS), tokens.long()]
    advantages = torch.tensor([[item.advantage] for item in samples], dtype=torch.float64)
    old = logprobs.detach() + 0.1 * torch.sin(logprobs.detach() * 9)  # the policy has moved: clips act
    loss = token_loss(algorithm, logprobs, old, behaviour, behaviour - 0.3, advantages, mask).loss
    shares = token_shares(mask, algorithm.normalization, TOKENS)
    ((loss * shares).sum() / units(mask, algorithm.normalization).clamp(min=1)).backward()  # type: ignore[no-untyped-call]
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


@pytest.mark.parametrize("name", ALGORITHMS)
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
    chosen = normalization if name != "gspo" else "sequence"
    algorithm = ALGORITHMS[name](group_size=GROUP, normalization=chosen, kl_coef=0.1)
    healthy, mixed = [], []
    for number, (rewards, ills) in enumerate(groups):
        prompt = Prompt(f"p{number}", "clip.wav", "", "en")
        group = [completion(prompt, GROUP * number + i, str(reward / 20)) for i, reward in enumerate(rewards)]
        healthy += group
        for place, ill in ills:
            group = [*group[:place], completion(prompt, 17, ill), *group[place:]]
        mixed += group
    alone = gradient(algorithm, made_of(pool, healthy, algorithm, normalize))
    larger = replace(algorithm, group_size=GROUP + 2)
    beside = gradient(larger, made_of(pool, mixed, larger, normalize))
    torch.testing.assert_close(beside, alone, rtol=1e-6, atol=1e-9)


def _train(
    rank: int, port: int, model: Path, batches: dict[str, tuple[AlgorithmConfig, list[list[TrainSample]]]], out: Path
) -> None:
    torch.set_num_threads(1)
    config = Recipe(name="test", learner=LearnerConfig(learning_rate=1e-3))
    config.algorithm.kl_coef = 0.1
    learner = Learner(config, model, Rendezvous(rank, 1, "127.0.0.1", port, timeout=120))
    parameters = [p for p in learner._policy.parameters() if p.requires_grad]
    start = [p.detach().clone() for p in parameters]
    found = {}
    for name, (algorithm, variants) in batches.items():
        learner._algorithm = algorithm
        for samples in variants:
            for parameter, value in zip(parameters, start, strict=True):
                parameter.data.copy_(value)
            learner._optimizer.state.clear()
            metrics = learner.train(samples)
            found.setdefault(name, []).append((metrics, learner.logprobs([s.sample for s in variants[0]])))
    torch.save(found, out)
    torch.distributed.destroy_process_group()


def test_failed_samples_change_no_step_of_the_real_learner(
    pool: RewardPool, tiny_checkpoint: Path, clips: list[Prompt], tmp_path: Path
) -> None:
    """The same metrics, gradient norm among them, and the same policy after two updates, by each algorithm."""
    healthy: list[Sample] = []
    mixed: list[Sample] = []
    for number, prompt in enumerate(clips):
        group = [completion(prompt, 40 + GROUP * number + i, str(((7 * i + number) % 5) / 5)) for i in range(GROUP)]
        group = [replace(s, tokens=tuple(40 + token for token in s.tokens)) for s in group]
        ill = replace(group[0], text=[*ILLS, "exit"][number])
        healthy += group
        mixed += [*group[: number % GROUP], ill, *group[number % GROUP :]]
    batches = {}
    for name in ALGORITHMS:
        algorithm = ALGORITHMS[name](group_size=GROUP, kl_coef=0.1, epochs=2, minibatches=1)
        larger = replace(algorithm, group_size=GROUP + 1)
        variants = [made_of(pool, healthy, algorithm, "none"), made_of(pool, mixed, larger, "none")]
        assert sum(not s.counts for s in variants[1]) == len(clips)
        batches[name] = (algorithm, variants)
    mp.spawn(_train, (free_port(), tiny_checkpoint, batches, tmp_path / "out.pt"), nprocs=1, join=True)
    for name, ((ours, policy), (theirs, same)) in torch.load(tmp_path / "out.pt").items():
        assert ours == pytest.approx(theirs, rel=2e-3, abs=1e-6), name
        assert ours["grad_norm"] > 0, name
        for one, other in zip(policy, same, strict=True):
            assert one == pytest.approx(other, abs=1e-4), name
