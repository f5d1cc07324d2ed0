"""Prompts in waves: the next is sampled while the last is scored, and nothing else changes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st

from rlhf_platform.data.dialogue import Next
from rlhf_platform.recipe.algorithms import GRPO
from rlhf_platform.recipe.dialogue import DialogueConfig
from rlhf_platform.recipe.schema import Recipe, RolloutConfig
from rlhf_platform.tracking.clock import PhaseClock
from rlhf_platform.train.drafting import Drafting
from rlhf_platform.train.failures import FailureWindow
from rlhf_platform.train.loop import collect
from rlhf_platform.train.waves import Scoring, parts, sample_and_score
from rlhf_platform.types import Prompt, Sample, Scored, ScoredSample, StopReason

GROUP = 2


class Diary:
    """A team that writes down what it is asked, in order."""

    def __init__(self, busy: float = 0.0) -> None:
        self.events: list[str] = []
        self.busy, self.user = busy, self
        self.rollouts = self.rewards = self

    def sample(self, prompts: Sequence[Prompt], seed: int) -> list[Sample]:
        self.events.append("sample " + " ".join(prompt.id for prompt in prompts))
        return [self._said(prompt, f"{seed}.{place}") for prompt in prompts for place in range(GROUP)]

    def reply(self, prompts: Sequence[Prompt], seed: int) -> list[Sample]:
        return [self._said(prompt, str(seed)) for prompt in prompts]

    def next(self, prompt: Prompt, reply: str) -> Next | None:
        return Next("clip.wav", "more", "yes")

    def ask(self, samples: Sequence[Sample], group_size: int) -> Sequence[Sample]:
        self.events.append(f"ask {len(samples)}")
        return samples

    def scored(
        self, asked: Sequence[Sequence[Sample]], step: int, group_size: int
    ) -> tuple[list[ScoredSample], Counter[str]]:
        self.events.append("wait")
        samples = [sample for each in asked for sample in each]
        work = Counter[str]()
        work.update({"reward_busy": self.busy})
        return [ScoredSample(s, Scored(float(n), {"r": float(n)})) for n, s in enumerate(samples)], work

    def _said(self, prompt: Prompt, text: str) -> Sample:
        return Sample(prompt, (1,), (-1.0,), text, StopReason.EOS, 0)


def prompts(count: int) -> list[Prompt]:
    turns = {"said": "hello", "history": [], "next": [{"audio": "clip.wav", "text": "more", "reference": "yes"}]}
    return [Prompt(f"p{number}", "clip.wav", "yes", "en", metadata=turns) for number in range(count)]


def recipe_of(waves: int) -> Recipe:
    return Recipe(name="a", algorithm=GRPO(group_size=GROUP), rollout=RolloutConfig(waves=waves))


def played(team: Any, recipe: Recipe, count: int) -> Scoring:
    return sample_and_score(recipe, team, prompts(count), 1, 5, PhaseClock(), Drafting(recipe, team, ()))


def test_a_wave_is_being_scored_while_the_next_is_sampled() -> None:
    team = Diary()
    scoring = played(team, recipe_of(3), 5)
    assert team.events == ["sample p0", "ask 2", "sample p1 p2", "ask 4", "sample p3 p4", "ask 4", "wait"]
    assert [s.sample.prompt.id for s in scoring.samples[::2]] == ["p0", "p1", "p2", "p3", "p4"]
    texts = [s.sample.text for s in scoring.samples]
    assert len(set(texts)) == 3 * GROUP, "no two waves draw alike"


def test_one_wave_is_the_step_as_it_always_was() -> None:
    team = Diary()
    assert [s.sample.text for s in played(team, recipe_of(1), 2).samples] == ["5.0", "5.1"] * 2
    assert team.events == ["sample p0 p1", "ask 4", "wait"]


def test_sessions_of_different_waves_do_not_share_their_rewards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sf.write("clip.wav", np.zeros(1600, np.float32), 16_000)
    dialogue = DialogueConfig(turns=2, multi_turn=1.0, session_weight=1.0)
    scoring = played(Diary(), replace(recipe_of(2), dialogue=dialogue), 2)
    # Samples 0 to 3 are the two turns of the first prompt's two sessions, 4 to 7 those of the second's.
    values = [s.outcome.value for s in scoring.samples if isinstance(s.outcome, Scored)]
    assert values == [1, 2, 1, 2, 5, 6, 5, 6]


@given(st.integers(1, 40), st.integers(1, 50))
def test_waves_part_the_prompts_in_order_and_are_of_nearly_one_size(count: int, waves: int) -> None:
    drawn = prompts(count)
    found = parts(drawn, waves)
    assert [prompt for part in found for prompt in part] == drawn
    sizes = [len(part) for part in found]
    assert len(sizes) == min(count, waves)
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("waves", "busy", "least"), [(2, 1e6, 0.99), (2, 1e-12, 0.0), (1, 1e6, None)])
def test_what_the_rewards_did_during_rollout_is_a_share_of_their_time(
    waves: int, busy: float, least: float | None
) -> None:
    team: Any = Diary(busy)
    recipe = recipe_of(waves)
    sampler: Any = SimpleNamespace(next=lambda: prompts(4))
    got = collect(recipe, team, sampler, 1, PhaseClock(), FailureWindow(recipe), Drafting(recipe, team, ()))
    assert "reward_busy" not in got.metrics
    assert ("reward_overlap" in got.metrics) == (least is not None)
    if least is not None:
        assert least <= got.metrics["reward_overlap"] <= 1
