"""Answers of a judge by the content of what was asked: completions repeat as a policy grows sure."""

import asyncio
import hashlib
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rlhf_platform.errors import RewardError

FILE = "judge_answers.jsonl"


@dataclass(frozen=True)
class Answer:
    """What an endpoint said to one question."""

    labels: tuple[str, ...]
    """One for each vote."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Probability of each label, where the endpoint was asked for it."""
    reasoning: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0


def content_key(*parts: Any) -> str:
    """SHA-256 of plain JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


class AnswerCache:
    """Remembers `size` answers, the latest ones, and all of them in `folder` if one is given; 0 remembers none.

    Questions that are under way are asked once. Used from one event loop.
    """

    def __init__(self, size: int, folder: str = "") -> None:
        """Raises `RewardError` when the folder cannot be used."""
        self._size = size
        self._file = Path(folder, FILE) if folder else None
        self._answers: dict[str, Answer] = {}
        self._under_way: dict[str, asyncio.Task[Answer]] = {}
        if self._file:
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                self._read(self._file)
            except OSError as error:
                raise RewardError(f"cache_dir is {folder!r}: {error.strerror}; name a folder to write to") from None

    async def answer(self, key: str, ask: Callable[[], Awaitable[Answer]]) -> tuple[Answer, bool]:
        """The answer to the question `key`, and whether it was there without asking. Raises what `ask` raises."""
        if key in self._answers:
            return self._answers[key], True
        task = self._under_way.get(key)
        known = task is not None
        if task is None:
            task = asyncio.ensure_future(self._asked(key, ask))
            if self._size:
                self._under_way[key] = task
        # One asker that runs out of time must not take the answer from the others.
        return await asyncio.shield(task), known

    async def _asked(self, key: str, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        try:
            answer = await ask()
        finally:
            self._under_way.pop(key, None)
        self._remember(key, answer)
        if self._file and self._size:
            # One write to a file opened for appending: processes that share it do not mix their lines.
            line = json.dumps({"key": key, **asdict(answer)}, ensure_ascii=False) + "\n"
            file = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(file, line.encode())
            finally:
                os.close(file)
        return answer

    def _remember(self, key: str, answer: Answer) -> None:
        if not self._size:
            return
        self._answers[key] = answer
        while len(self._answers) > self._size:
            del self._answers[next(iter(self._answers))]

    def _read(self, file: Path) -> None:
        if not file.exists():
            return
        for line in file.read_text("utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
                key, labels = entry.pop("key"), tuple(entry.pop("labels"))
                self._remember(key, Answer(labels, **entry))
            except (ValueError, TypeError, KeyError, AttributeError):  # a line that a full disk cut short
                continue
