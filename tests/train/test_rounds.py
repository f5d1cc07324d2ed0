"""The rounds of offline training: what each learns from, from where it starts, what it is held to, where it goes on."""

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_platform.data.pairs import Answer, Judgement, Pair, read_pairs
from rlhf_platform.errors import RecipeError, RewardError
from rlhf_platform.learner.preference import Round
from rlhf_platform.recipe.preferences import DPO, JudgedConfig, RewardModel
from rlhf_platform.recipe.schema import Recipe, RolloutConfig
from rlhf_platform.train.rounds import RoundResult, pairs_of, preference_rounds, round_size
from rlhf_platform.types import Failed, Prompt, Sample, Scored, ScoredSample, StopReason

GROUP = 4


class FakeRollouts:
    """Writes token k as the k-th sample of a prompt; knows what it serves."""

    def __init__(self) -> None:
        self.serves: list[str] = []
        self.seeds: list[int] = []

    def sample(self, prompts: Sequence[Prompt], seed: int) -> list[Sample]:
        self.seeds.append(seed)
        return [
            Sample(prompt, (k,), (-1.0,), f"text {k}", StopReason.EOS, 0) for prompt in prompts for k in range(GROUP)
        ]

    def restart(self, model: Path, probe: Sequence[Prompt]) -> None:
        self.serves.append(model.parent.name)


class FakeRewards:
    """The k-th sample of a prompt gets `self.values[k]`; None fails."""

    def __init__(self, values: Sequence[float | None] = (0.5, 0.1, 0.9, 0.1)) -> None:
        self.values = values

    def score(
        self, samples: Sequence[Sample], step: int, group_size: int | None = None
    ) -> tuple[list[ScoredSample], Counter[str]]:
        values = [self.values[sample.tokens[0]] for sample in samples]
        outcomes = [Failed("raised", "no") if v is None else Scored(v, {"r": v}) for v in values]
        return list(map(ScoredSample, samples, outcomes)), Counter()


class FakeTrainer:
    """Remembers what it was to do, and leaves a checkpoint."""

    def __init__(self) -> None:
        self.tasks: list[Round] = []
        self.learnt: list[list[Judgement]] = []

    def train(self, task: Round, judgements: Sequence[Judgement]) -> dict[str, float]:
        Path(task.out).mkdir(parents=True)
        self.tasks.append(task)
        self.learnt.append(list(judgements))
        return {"loss": 0.5, "pair_accuracy": 1.0}


class Run:
    """A run without models, whose parts can be asked what they did."""

    def __init__(self, folder: Path, algorithm: JudgedConfig, *, prompts: int = 12, steps: int = 10) -> None:
        self.folder, self.rollouts, self.rewards, self.trainer = folder, FakeRollouts(), FakeRewards(), FakeTrainer()
        self.recipe = Recipe(
            name="test", steps=steps, algorithm=algorithm, rollout=RolloutConfig(prompts_per_step=2), seed=3
        )
        self.prompts = [Prompt(f"p{i}", f"{folder}/{i}.wav", "one", "en", duration=1.0) for i in range(prompts)]
        for prompt in self.prompts:
            Path(prompt.audio).touch()

    def begin(
        self, judgements: Sequence[Judgement] | None = None, done: int = 0, policy: Path | None = None
    ) -> Iterator[RoundResult]:
        sampling = (self.rollouts, self.rewards)
        parts = (self.recipe, sampling, self.trainer, self.prompts, "start", self.folder)
        return preference_rounds(*parts, probe=(), judgements=judgements, done=done, policy=policy)

    def rounds(self, judgements: Sequence[Judgement] | None = None) -> list[RoundResult]:
        return list(self.begin(judgements))


def name_of(checkpoint: str) -> str:
    return Path(checkpoint).parent.name or checkpoint


def names(run: Run) -> list[tuple[str, str]]:
    """Start and reference of each round, by the folder of its checkpoint."""
    return [(name_of(task.model), name_of(task.reference)) for task in run.trainer.tasks]


def test_each_round_makes_pairs_trains_and_serves_the_next_policy(tmp_path: Path) -> None:
    run = Run(tmp_path, DPO(group_size=GROUP, rounds=3), steps=10)
    results = run.rounds()
    assert [(r.number, r.step) for r in results] == [(1, 3), (2, 6), (3, 10)]
    assert [(t.first, t.steps, t.number) for t in run.trainer.tasks] == [(0, 3, 1), (3, 3, 2), (6, 4, 3)]
    assert run.rollouts.serves == ["round_1", "round_2", "round_3"]
    assert [names(run)[i][0] for i in (1, 2)] == ["round_1", "round_2"]
    assert len(set(run.rollouts.seeds)) == 6
    assert results[-1].checkpoint == tmp_path / "rounds" / "round_3" / "checkpoint"
    metrics = results[0].metrics
    assert (metrics["pairs"], metrics["round"], metrics["groups_with_spread"], metrics["loss"]) == (4, 1, 1.0, 0.5)
    assert metrics["reward"] == pytest.approx(0.4)
    assert {"seconds/rollout", "seconds/reward", "seconds/update", "seconds/sync"} <= metrics.keys()


@pytest.mark.parametrize(
    ("reference", "held_to"), [("fixed", ["start"] * 3), ("moving", ["start", "round_1", "round_2"])]
)
def test_the_reference_stays_or_moves(reference: str, held_to: list[str], tmp_path: Path) -> None:
    run = Run(tmp_path, DPO(group_size=GROUP, rounds=3, reference=reference))
    run.rounds()
    assert [name for _, name in names(run)] == held_to


def test_pairs_are_the_best_and_the_worst_and_are_written_down(tmp_path: Path) -> None:
    run = Run(tmp_path, DPO(group_size=GROUP, rounds=2))
    run.rounds()
    for number, learnt in enumerate(run.trainer.learnt, start=1):
        assert [(p.chosen.tokens, p.rejected.tokens) for p in learnt if isinstance(p, Pair)] == [((2,), (1,))] * 6
        assert [p.margin for p in learnt if isinstance(p, Pair)] == pytest.approx([0.8] * 6)
        assert read_pairs(tmp_path / "pairs" / f"round_{number}.jsonl", DPO()) == learnt


def test_a_group_without_spread_or_with_failures_makes_no_pair() -> None:
    prompts = [Prompt(f"p{i}", "a.wav", "one", "en") for i in range(3)]
    rewards: list[list[float | None]] = [[0.5, 0.5, 0.5], [None, None, 1.0], [0.2, None, 0.7]]
    scored = [
        ScoredSample(
            Sample(prompt, (k,), (-1.0,), str(k), StopReason.EOS, 0),
            Failed("raised", "no") if value is None else Scored(value, {}),
        )
        for prompt, row in zip(prompts, rewards, strict=True)
        for k, value in enumerate(row)
    ]
    (pair,) = pairs_of(scored, 3)
    assert (pair.prompt.id, pair.chosen, pair.rejected) == ("p2", Answer("2", (2,)), Answer("0", (0,)))
    assert pair.margin == pytest.approx(0.5)


def test_a_round_in_which_nothing_differs_ends_the_run(tmp_path: Path) -> None:
    run = Run(tmp_path, DPO(group_size=GROUP))
    run.rewards = FakeRewards((0.5, 0.5, 0.5, 0.5))
    with pytest.raises(
        RewardError, match=r"^rewards: in round 1 all samples of each of 12 prompts have the same reward"
    ):
        run.rounds()


def test_too_many_failures_end_the_run(tmp_path: Path) -> None:
    run = Run(tmp_path, DPO(group_size=GROUP))
    run.rewards = FakeRewards((None, None, 0.1, 0.2))
    with pytest.raises(RewardError, match=r"^rewards: 4 of 8 samples failed"):
        run.rounds()


@given(st.integers(1, 5), st.integers(0, 60), st.integers(0, 7), st.sampled_from([None, 1, 2, 4]))
def test_nothing_is_drawn_or_learnt_twice(rounds: int, available: int, seed: int, per_round: int | None) -> None:
    """Of prompts and of given pairs alike; what is too few is refused before anything is done."""
    with tempfile.TemporaryDirectory() as folder:
        for given_pairs in (False, True):
            algorithm = DPO(group_size=GROUP, rounds=rounds, pairs_per_round=per_round)
            run = Run(Path(folder, str(given_pairs)), algorithm, prompts=0)
            run.folder.mkdir()
            run.recipe.seed = seed
            if per_round == 1 and not given_pairs:
                continue  # refused by the recipe: prompts are drawn two at a time
            run.prompts = [Prompt(f"p{i}", f"{i}.wav", "one", "en", duration=1.0) for i in range(available)]
            pairs = [Pair(i, p, Answer("a"), Answer("b")) for i, p in enumerate(run.prompts, start=1)]
            unit = 1 if given_pairs else 2
            size = per_round or available // rounds // unit * unit
            if size == 0 or size * rounds > available:
                with pytest.raises(RecipeError):
                    run.rounds(pairs if given_pairs else None)
                assert not run.trainer.tasks
                continue
            results = run.rounds(pairs if given_pairs else None)
            drawn = [prompt.id for result in results for prompt in result.prompts]
            learnt = [judgement.prompt.id for part in run.trainer.learnt for judgement in part]
            assert sorted(learnt) == sorted(drawn)
            assert len(set(drawn)) == len(drawn) == size * rounds
            if given_pairs:
                assert [j for part in run.trainer.learnt for j in part] == pairs[: size * rounds]


def test_a_run_that_was_cut_off_goes_on_with_the_next_round(tmp_path: Path) -> None:
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    whole = Run(tmp_path / "whole", DPO(group_size=GROUP, rounds=3))
    expected = whole.rounds()
    first = Run(tmp_path / "cut", DPO(group_size=GROUP, rounds=3))
    begun = first.begin()
    kept = next(begun).checkpoint
    next(begun)  # the caller keeps the first round only

    again = Run(tmp_path / "cut", DPO(group_size=GROUP, rounds=3))
    found = list(again.begin(done=1, policy=kept))
    assert [(r.number, r.step, [p.id for p in r.prompts]) for r in found] == [
        (r.number, r.step, [p.id for p in r.prompts]) for r in expected[1:]
    ]
    assert [t.first for t in again.trainer.tasks] == [t.first for t in whole.trainer.tasks[1:]]
    assert names(again)[0] == ("round_1", "round_1")
    assert again.rollouts.seeds == whole.rollouts.seeds[2:]
    assert [path.name for path in (again.folder / "rounds").iterdir()] == ["round_3"]


def test_a_reward_model_is_not_served(tmp_path: Path) -> None:
    run = Run(tmp_path, RewardModel(group_size=GROUP))
    (result,) = run.rounds()
    assert (result.number, result.step, run.rollouts.serves) == (1, 10, [])


def test_too_few_prompts_or_pairs_are_told_with_the_way_out() -> None:
    recipe = Recipe(name="a", algorithm=DPO(rounds=3, pairs_per_round=8), rollout=RolloutConfig(prompts_per_step=8))
    with pytest.raises(RecipeError) as error:
        round_size(recipe, 20, given=False)
    assert str(error.value) == (
        "algorithm.pairs_per_round is 8: algorithm.rounds=3 take 24 prompts of data.rl_split=train, each once, and "
        "there are 20; lower one of them or add data"
    )
    recipe.algorithm = DPO(rounds=3)
    with pytest.raises(RecipeError) as error:
        round_size(recipe, 20, given=False)
    assert str(error.value) == (
        "algorithm.rounds is 3: 20 prompts of data.rl_split=train are too few for as many rounds, 8 at a time "
        "(rollout.prompts_per_step); lower it"
    )
    assert round_size(recipe, 20, given=True) == 6
    with pytest.raises(RecipeError, match=r"^algorithm\.rounds is 3: 2 lines of data\.pairs are too few for as many"):
        round_size(recipe, 2, given=True)
