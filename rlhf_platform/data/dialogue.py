"""Spoken dialogue: what the metadata of a dialogue prompt say, typed (docs/dialogue_data.md).

Importing this file imports no torch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rlhf_platform.data.audio import SAMPLE_RATE, load_audio
from rlhf_platform.types import Prompt

THINK, ANSWER = "<think>", "</think>"
"""A reply is written `<think>what was heard</think> the reply`, or without a trace as `the reply`."""

USER, ASSISTANT = "user", "assistant"

_FIRST_ID = "first_id"  # of the prompt that a session began with, in the metadata of those that follow
_OF_ONE_TURN = ("reasoning", "kind", "flaw")  # what the metadata say of the latest turn alone


@dataclass(frozen=True)
class Turn:
    """One past turn of a dialogue."""

    role: str
    """`user` or `assistant`."""
    text: str
    """What was said, without a reasoning trace."""
    audio: str = ""
    """Absolute path of a user turn's clip."""
    tokens: tuple[int, ...] = ()
    """Token ids of a reply that the policy itself wrote, trace and end token included; they are never made anew."""
    reasoning: str = ""
    """The trace of a reply."""


@dataclass(frozen=True)
class Next:
    """A user turn still to come."""

    audio: str
    """Absolute path."""
    text: str
    reference: str = ""
    """The reference reply; "" where nobody wrote one."""


@dataclass(frozen=True)
class Session:
    """A dialogue up to the user's latest turn, which is to be answered."""

    persona: str
    """The system turn; may be empty."""
    history: tuple[Turn, ...]
    """Oldest first: a user, an assistant, and so on; the last is an assistant."""
    said: str
    """What the user's latest turn says."""
    audio: str
    """Its clip."""
    next: tuple[Next, ...] = ()


def is_dialogue(metadata: Mapping[str, Any]) -> bool:
    """Whether a prompt with such metadata is a turn of a dialogue."""
    return "said" in metadata


def session_of(audio: str, metadata: Mapping[str, Any]) -> Session:
    """The dialogue of a prompt, whose clip is `audio`."""
    return Session(
        persona=metadata.get("persona", ""),
        history=tuple(_turn(turn) for turn in metadata.get("history", ())),
        said=metadata["said"],
        audio=audio,
        next=tuple(Next(turn["audio"], turn["text"], turn.get("reference", "")) for turn in metadata.get("next", ())),
    )


def written(reasoning: str, reply: str) -> str:
    """The text of a completion: the reasoning trace, unless it is empty, then the reply."""
    return f"{THINK}{reasoning}{ANSWER} {reply}" if reasoning else reply


def split_reply(text: str) -> tuple[str, str]:
    """(reasoning, reply) of a completion's text.

    All before the first `</think>` is reasoning. A trace that is never closed leaves no reply.
    """
    before, closed, after = text.partition(ANSWER)
    if closed:
        return before.replace(THINK, "", 1).strip(), after.strip()
    before, opened, trace = text.partition(THINK)
    return (f"{before}{trace}".strip(), "") if opened else ("", text.strip())


def follow_up(prompt: Prompt, text: str, tokens: Sequence[int], said: Next) -> Prompt:
    """The prompt of the next turn, after the policy answered `prompt` with `tokens`, which read `text`.

    The history grows by the user's latest turn and this reply; the scripted turns after `said` remain. The id is that
    of the session's first prompt, `#`, and the turn's number, which is 2 for the first that follows. Raises `DataError`
    where the clip of `said` cannot be read.
    """
    first = prompt.metadata.get(_FIRST_ID, prompt.id)
    number = 1 if first == prompt.id else int(prompt.id.rpartition("#")[2])
    reasoning, reply = split_reply(text)
    user = {"role": USER, "audio": prompt.audio, "text": prompt.metadata["said"]}
    answer = {"role": ASSISTANT, "text": reply, "tokens": [*tokens], "reasoning": reasoning}
    kept = {key: value for key, value in prompt.metadata.items() if key not in _OF_ONE_TURN}
    scripted = session_of(prompt.audio, prompt.metadata).next
    return replace(
        prompt,
        id=f"{first}#{number + 1}",
        audio=said.audio,
        reference=said.reference,
        duration=len(load_audio(said.audio)) / SAMPLE_RATE,
        metadata=kept
        | {
            _FIRST_ID: first,
            "said": said.text,
            "history": [*prompt.metadata.get("history", ()), user, answer],
            "next": prompt.metadata["next"][1:] if scripted[:1] == (said,) else [],
        },
    )


def with_clips(metadata: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """The metadata of a dialogue prompt with `change` made to the path of every clip in them."""
    return {key: _changed(value, change) if key in ("history", "next") else value for key, value in metadata.items()}


def _changed(turns: Sequence[Mapping[str, Any]], change: Callable[[str], str]) -> list[dict[str, Any]]:
    return [{**turn, "audio": change(turn["audio"])} if turn.get("audio") else {**turn} for turn in turns]


def _turn(values: Mapping[str, Any]) -> Turn:
    return Turn(
        role=values["role"],
        text=values["text"],
        audio=values.get("audio", ""),
        tokens=tuple(values.get("tokens", ())),
        reasoning=values.get("reasoning", ""),
    )
