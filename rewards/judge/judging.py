"""Judges: a question to an endpoint, in both orders, and what its answers come to."""

import asyncio
import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from io import BytesIO
from typing import Any

from rewards.judge.budget import Budget
from rewards.judge.cache import Answer, AnswerCache, content_key
from rewards.judge.client import Endpoint, Question
from rewards.judge.prompts import PAIRWISE, RUBRIC, load_prompt
from rewards.judge.rubric import Criterion
from rewards.judge.settings import JudgeSettings
from rewards.judge.types import Exchange, Verdict
from rewards.judge.verdict import abstains, expected_level, mean, swapped, to_vote
from rlhf_platform.data.audio import SAMPLE_RATE, load_audio

HEARD = "The user's turns as audio, oldest first:"
"""Goes before the clips that a judge hears."""


class _Judge:
    """An endpoint with a prompt, what it answered before and what that cost."""

    def __init__(self, settings: JudgeSettings, kind: str, prompt: str) -> None:
        self.settings = settings
        self.prompt = load_prompt(settings.prompt or prompt, kind)
        self.budget = Budget(settings.budget_tokens, settings.budget_cost, settings.price_in, settings.price_out)
        self._endpoint = Endpoint(settings)
        self._cache = AnswerCache(settings.cache_size, settings.cache_dir)

    async def close(self) -> None:
        """Let the connections go."""
        await self._endpoint.close()

    async def _ask(self, question: Question, exchange: Exchange) -> tuple[Answer, bool]:
        """The answer, and whether it was known. Raises `JudgeFailure`."""
        settings = self.settings
        if settings.sees == "audio" and exchange.clips:
            # Paths decide nothing: the samples that a judge hears are part of what is remembered.
            question = replace(question, messages=_with_clips(question.messages, exchange.clips))
        model = await self._endpoint.model()
        drawn = [
            settings.structured,
            settings.votes,
            settings.expected,
            settings.temperature,
            settings.reasoning_tokens,
            settings.seed,
        ]
        key = content_key(model, self.prompt.name, question.messages, question.ask, question.labels, drawn)

        async def asked() -> Answer:
            self.budget.check()
            answer = await self._endpoint.choose(question)
            self.budget.spend(answer.prompt_tokens, answer.completion_tokens)
            return answer

        return await self._cache.answer(key, asked)


class PairJudge(_Judge):
    """Compares two replies to the same turn."""

    def __init__(self, settings: JudgeSettings) -> None:
        """Raises `RecipeError` for a prompt that is not to be had, `JudgeFailure` for an API key that is not set."""
        super().__init__(settings, PAIRWISE, "pairwise-1")

    async def compare(self, exchange: Exchange, candidate: str, other: str) -> Verdict:
        """The verdict on `candidate`; both are replies without a reasoning trace. Raises `JudgeFailure`."""
        pairs = [(candidate, other), (other, candidate)] if self.settings.swap else [(candidate, other)]
        reasoning = self.settings.reasoning_tokens > 0
        questions = [self.prompt.pairwise(exchange, first, second, reasoning) for first, second in pairs]
        came = await asyncio.gather(*(self._ask(question, exchange) for question in questions))
        votes = [[self.prompt.labels[label] for label in answer.labels] for answer, _ in came]
        levels = [
            [expected_level(answer.weights, self.prompt.labels)] if answer.weights else drawn
            for (answer, _), drawn in zip(came, votes, strict=True)
        ]
        seen = [levels[0], *(swapped(each) for each in levels[1:])]
        cast = [*votes[0], *(vote for each in votes[1:] for vote in swapped(each))]
        second: Sequence[float] = seen[1] if len(seen) > 1 else ()
        return Verdict(
            level=mean([mean(each) for each in seen]),
            votes=tuple(to_vote(vote) for vote in cast),
            abstained=abstains(seen[0], second, cast, self.settings.agreement),
            reasoning=came[0][0].reasoning,
            prompt_tokens=sum(answer.prompt_tokens for answer, known in came if not known),
            completion_tokens=sum(answer.completion_tokens for answer, known in came if not known),
            cached=all(known for _, known in came),
        )


@dataclass(frozen=True)
class Rating:
    """A judge's word on one criterion."""

    level: float
    """Mean over votes, between the criterion's lowest and highest."""
    prompt_tokens: int
    completion_tokens: int
    cached: bool


class RubricJudge(_Judge):
    """Rates one reply by one criterion at a time."""

    def __init__(self, settings: JudgeSettings) -> None:
        """Raises as `PairJudge`."""
        super().__init__(settings, RUBRIC, "rubric-1")

    async def rate(self, exchange: Exchange, reply: str, criterion: Criterion) -> Rating:
        """The level of `reply`, which has no reasoning trace. Raises `JudgeFailure`."""
        anchors = {str(level): text for level, text in criterion.levels.items()}
        levels = {label: float(label) for label in anchors}
        reasoning = self.settings.reasoning_tokens > 0
        question = self.prompt.rubric(exchange, reply, criterion.question, anchors, reasoning)
        answer, known = await self._ask(question, exchange)
        level = (
            expected_level(answer.weights, levels) if answer.weights else mean([levels[each] for each in answer.labels])
        )
        paid = (0, 0) if known else (answer.prompt_tokens, answer.completion_tokens)
        return Rating(level, *paid, known)


def _with_clips(messages: Sequence[Mapping[str, Any]], clips: Sequence[str]) -> tuple[Mapping[str, Any], ...]:
    """The last message, the user's, with the clips before its text."""
    last = messages[-1]
    heard = [{"type": "input_audio", "input_audio": {"data": _wav(clip), "format": "wav"}} for clip in clips]
    parts = [{"type": "text", "text": HEARD}, *heard, {"type": "text", "text": last["content"]}]
    return (*messages[:-1], {**last, "content": parts})


@lru_cache(maxsize=256)
def _wav(path: str) -> str:
    """A clip as base64 of a WAV file, 16 bits. Raises `DataError`."""
    import soundfile

    file = BytesIO()
    soundfile.write(file, load_audio(path), SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return base64.b64encode(file.getvalue()).decode()
