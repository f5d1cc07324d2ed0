"""Sessions of several turns: who goes on, in which order, and what a session's reward is."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from rlhf_platform.data.dialogue import Next, session_of
from rlhf_platform.recipe.dialogue import DialogueConfig
from rlhf_platform.train.loop import in_shares
from rlhf_platform.train.sessions import Played, go_on, over_sessions
from rlhf_platform.types import Failed, Prompt, Sample, Scored, ScoredSample, StopReason


@pytest.fixture
def clip(tmp_path: Path) -> str:
    path = tmp_path / "clip.wav"
    sf.write(path, np.zeros(1600, dtype=np.float32), 16_000)
    return str(path)


class Echo:
    """Rollouts whose replies tell which prompt they answer; how often each call was made."""

    def __init__(self, group: int) -> None:
        self.group = group
        self.seeds: list[int] = []

    def sample(self, prompts: Sequence[Prompt], seed: int) -> list[Sample]:
        self.seeds.append(seed)
        return [self._said(prompt, place) for prompt in prompts for place in range(self.group)]

    def reply(self, prompts: Sequence[Prompt], seed: int) -> list[Sample]:
        self.seeds.append(seed)
        return [self._said(prompt, 7) for prompt in prompts]

    def _said(self, prompt: Prompt, place: int) -> Sample:
        return Sample(prompt, (place, 99), (-1.0, -1.0), f"reply {place}", StopReason.EOS, 0)


def play(
    rollouts: Echo, prompts: Sequence[Prompt], group: int, dialogue: DialogueConfig, user: "Script", seed: int
) -> Played:
    return go_on(rollouts.sample(prompts, seed), rollouts.reply, group, dialogue, user, seed)


class Script:
    def next(self, prompt: Prompt, reply: str) -> Next | None:
        following = session_of(prompt.audio, prompt.metadata).next
        return following[0] if following else None


def prompt(name: str, clip: str, to_come: int) -> Prompt:
    following = [{"audio": clip, "text": f"turn {n}", "reference": "yes"} for n in range(2, 2 + to_come)]
    return Prompt(name, clip, "yes", "en", metadata={"said": "turn 1", "history": [], "next": following})


def test_a_recipe_of_single_turns_answers_each_prompt_once(clip: str) -> None:
    rollouts = Echo(2)
    played = play(rollouts, [prompt("a", clip, 2)], 2, DialogueConfig(turns=1), Script(), 5)
    assert [s.prompt.id for s in played.samples] == ["a", "a"]
    assert rollouts.seeds == [5]


def test_each_session_goes_on_from_its_own_reply_in_groups_of_the_prompt(clip: str) -> None:
    prompts = [prompt("a", clip, 2), prompt("b", clip, 0)]
    played = play(Echo(2), prompts, 2, DialogueConfig(turns=3, multi_turn=1.0), Script(), 5)
    assert [s.prompt.id.partition("~")[0] for s in played.samples] == ["a"] * 6 + ["b"] * 2
    assert list(played.sessions) == [0, 1, 0, 1, 0, 1, 2, 3]
    second, third = played.samples[2:4], played.samples[4:6]
    # The token ids of the own reply are carried, not made anew.
    assert [s.prompt.metadata["history"][-1]["tokens"] for s in second] == [[0, 99], [1, 99]]
    assert [s.prompt.metadata["said"] for s in third] == ["turn 3", "turn 3"]
    assert [len(s.prompt.metadata["history"]) for s in third] == [4, 4]
    assert len({s.prompt.id for s in (*second, *third)}) == 4, "another history is another prompt"


def test_no_more_than_their_share_of_the_prompts_are_played_on(clip: str) -> None:
    prompts = [prompt(str(n), clip, 1) for n in range(4)]
    played = play(Echo(1), prompts, 1, DialogueConfig(turns=2, multi_turn=0.5), Script(), 5)
    assert sum("#" in s.prompt.id for s in played.samples) == 2


def test_a_user_who_falls_silent_in_one_session_ends_the_turn_for_its_group(clip: str) -> None:
    class Fickle(Script):
        def next(self, prompt: Prompt, reply: str) -> Next | None:
            return None if reply == "reply 1" else super().next(prompt, reply)

    played = play(Echo(2), [prompt("a", clip, 1)], 2, DialogueConfig(turns=2, multi_turn=1.0), Fickle(), 5)
    assert len(played.samples) == 2


def test_a_session_shares_its_mean_and_a_failure_counts_in_none(clip: str) -> None:
    sample = Echo(1).sample([prompt("a", clip, 0)], 0)[0]
    scored = [ScoredSample(sample, Scored(v, {})) for v in (1.0, 0.0, 0.5)]
    scored.append(ScoredSample(sample, Failed("timeout", "late")))
    found = over_sessions(scored, [0, 0, 1, 1], 0.5)
    assert [s.outcome.value for s in found[:3]] == [0.75, 0.25, 0.5]  # type: ignore[union-attr]
    assert isinstance(found[3].outcome, Failed)
    assert over_sessions(scored, [0, 0, 1, 1], 0.0) == scored


def test_ranks_get_equal_shares_of_a_step_whose_sessions_end_when_they_end(clip: str) -> None:
    sample = Echo(1).sample([prompt("a", clip, 0)], 0)[0]
    scored = [ScoredSample(sample, Scored(float(n), {})) for n in range(10)]
    assert in_shares(scored, 2, 1) == scored
    assert in_shares(scored, 2, 2) == scored
    assert in_shares(scored, 2, 4) == scored[:8]
    assert in_shares(scored[:9], 1, 4) == scored[:8]
