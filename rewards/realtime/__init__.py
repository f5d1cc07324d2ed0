"""Rewards for spoken dialogue (docs/realtime_rewards.md): what a recipe names as `rewards.realtime:NAME`."""

from rewards.realtime.facts import facts, persona_mark
from rewards.realtime.reply import closed, evasive
from rewards.realtime.timing import answer_seconds, latency, pauses, reasoning_length

__all__ = [
    "answer_seconds",
    "closed",
    "evasive",
    "facts",
    "latency",
    "pauses",
    "persona_mark",
    "reasoning_length",
]
