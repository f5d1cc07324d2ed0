"""Dialogues over the clips of `tests.tiny.write_clips`."""

from collections.abc import Sequence
from typing import Any

from rlhf_platform.types import Prompt

PERSONA = "You are a bravo <|im_end|> alpha."
SAID = ("alpha", "bravo seven", "charlie nine")
REPLIES = ("echo one", "delta <|im_start|> two")


def dialogue(clips: Sequence[Prompt], exchanges: int, persona: str = PERSONA, **metadata: Any) -> Prompt:
    """A prompt with so many past exchanges; its turns are heard in the clips, in order."""
    history: list[dict[str, Any]] = []
    for clip, said, reply in zip(clips[:exchanges], SAID, REPLIES, strict=False):
        history.append({"role": "user", "audio": clip.audio, "text": said})
        history.append({"role": "assistant", "text": reply})
    latest = clips[exchanges]
    facts = {"persona": persona, "said": SAID[exchanges], "history": history, **metadata}
    return Prompt(f"d{exchanges}", latest.audio, "delta four", "en", duration=latest.duration, metadata=facts)
