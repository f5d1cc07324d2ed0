"""Sessions of several turns: the policy answers, the user speaks again, and the policy lives with what it said."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from rlhf_platform.data.dialogue import Next, follow_up, is_dialogue, session_of
from rlhf_platform.recipe.dialogue import DialogueConfig
from rlhf_platform.train.spread import mean
from rlhf_platform.types import Prompt, Sample, Scored, ScoredSample


class User(Protocol):
    """Who speaks the later turns."""

    def next(self, prompt: Prompt, reply: str) -> Next | None:
        """What the user says to the reply; None when the session is over."""
        ...


Answer = Callable[[Sequence[Prompt], int], list[Sample]]
"""One completion of each prompt, drawn with a seed."""


@dataclass(frozen=True)
class Played:
    """What a step's prompts became."""

    samples: Sequence[Sample]
    """Groups of `group_size`: those of a prompt's first turn, then those of each later turn, in the order of the
    prompts. Samples at one place of a prompt's groups are one session."""
    sessions: Sequence[int]
    """Which session each sample is of."""
    silent: int
    """Sessions in which the user had nothing more to say, or could not be asked."""


def go_on(
    samples: Sequence[Sample], reply: Answer, group_size: int, dialogue: DialogueConfig, user: User | None, seed: int
) -> Played:
    """Play the sessions that `samples`, groups of first answers, have begun, for up to `dialogue.turns` user turns.

    A later turn whose user has nothing to say in one session of a prompt ends all of that prompt's: a group is whole.
    """
    turns = [[samples[i : i + group_size]] for i in range(0, len(samples), group_size)]
    going = _chosen([groups[0][0].prompt for groups in turns], dialogue) if user else []
    silent = 0
    for turn in range(2, dialogue.turns + 1):
        asked: dict[int, list[Prompt]] = {}
        for number in going:
            onward = [_onward(sample, place, turn, user, seed) for place, sample in enumerate(turns[number][-1])]
            asked[number] = [prompt for prompt in onward if prompt is not None]
        silent += sum(group_size - len(prompts) for prompts in asked.values())
        going = [number for number in going if len(asked[number]) == group_size]
        if not going:
            break
        answers = iter(reply([p for number in going for p in asked[number]], seed + turn * 7919))
        for number in going:
            turns[number].append([next(answers) for _ in range(group_size)])
    found = [
        (sample, number * group_size + place)
        for number, groups in enumerate(turns)
        for group in groups
        for place, sample in enumerate(group)
    ]
    return Played([sample for sample, _ in found], [session for _, session in found], silent)


def over_sessions(scored: Sequence[ScoredSample], sessions: Sequence[int], weight: float) -> list[ScoredSample]:
    """Rewards of which the share `weight` is the mean over the session; what failed stays failed and counts in none."""
    if not weight:
        return list(scored)
    values: dict[int, list[float]] = {}
    for each, session in zip(scored, sessions, strict=True):
        if isinstance(each.outcome, Scored):
            values.setdefault(session, []).append(each.outcome.value)
    return [
        replace(each, outcome=replace(o, value=(1 - weight) * o.value + weight * mean(values[session])))
        if isinstance(o := each.outcome, Scored)
        else each
        for each, session in zip(scored, sessions, strict=True)
    ]


def _chosen(prompts: Sequence[Prompt], dialogue: DialogueConfig) -> list[int]:
    """Which prompts are played on: at most the share `multi_turn` of them, the first that can be."""
    if dialogue.turns < 2:
        return []
    able = [
        number
        for number, prompt in enumerate(prompts)
        if is_dialogue(prompt.metadata) and (dialogue.user == "llm" or session_of(prompt.audio, prompt.metadata).next)
    ]
    return able[: round(dialogue.multi_turn * len(prompts))]


def _onward(sample: Sample, place: int, turn: int, user: User | None, seed: int) -> Prompt | None:
    """The prompt of the next turn. Its id is met once in a run: what is kept for another history is not its own."""
    said = user.next(sample.prompt, sample.text) if user else None
    if said is None:
        return None
    onward = follow_up(sample.prompt, sample.text, sample.tokens, said)
    first = sample.prompt.id.partition("~")[0]
    return replace(onward, id=f"{first}~{seed}.{place}#{turn}")
