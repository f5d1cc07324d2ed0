"""Asks a judge about labelled pairs, and holds it to what the recipe demands of it before a run starts."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from rewards.judge.cache import content_key
from rewards.judge.judging import PairJudge
from rewards.judge.settings import JudgeSettings
from rewards.judge.types import Exchange, JudgeFailure, Verdict
from rewards.judge.verdict import abstains
from rlhf_platform.data.labelled import Labelled
from rlhf_platform.errors import RunError
from rlhf_platform.evaluation.ablation import VOTES, Setting, ablate_order, ablate_votes
from rlhf_platform.evaluation.calibration import Calibration, calibration
from rlhf_platform.evaluation.injection import ATTACKS, Injection, Trial, injected, injection, padded
from rlhf_platform.evaluation.rulings import TIE, A, Asked, Recording, Ruling
from rlhf_platform.recipe.judges import CalibrationConfig
from rlhf_platform.types import Failed

T = TypeVar("T")
Progress = Callable[[int, int], None]

MOST_FAILED = 0.1
"""Share of pairs without a verdict above which a judge's figures are not to be used."""

_AT_A_TIME = 8
"""Pairs that are asked about at once."""


def _silent(done: int, total: int) -> None:
    pass


class Bench:
    """A judge that is being measured. It is asked in each order by itself, so that what each said is known."""

    def __init__(self, settings: JudgeSettings) -> None:
        self._settings = settings
        self._judge = PairJudge(replace(settings, swap=False))
        self._places = asyncio.Semaphore(_AT_A_TIME)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._judge.close()

    async def ask(self, pair: Labelled, a: str, b: str) -> Asked:
        """What it says of two replies to what the pair's user said. Raises `JudgeFailure`."""
        exchange = Exchange(pair.persona, pair.history, pair.said)
        async with self._places:
            orders = [self._judge.compare(exchange, a, b)]
            orders += [self._judge.compare(exchange, b, a)] if self._settings.swap else []
            verdicts = await asyncio.gather(*orders)
        first = self._levels(verdicts[0])
        second = tuple(-level for level in self._levels(verdicts[1])) if self._settings.swap else ()
        return Asked(
            first=first,
            second=second,
            abstained=abstains(first, second, [*first, *second], self._settings.agreement),
            prompt_tokens=sum(verdict.prompt_tokens for verdict in verdicts),
            completion_tokens=sum(verdict.completion_tokens for verdict in verdicts),
            cached=all(verdict.cached for verdict in verdicts),
        )

    def _levels(self, verdict: Verdict) -> tuple[float, ...]:
        # Votes are whole levels; the expected level is not.
        return (verdict.level,) if self._settings.expected else tuple(verdict.votes)


async def record(settings: JudgeSettings, pairs: Sequence[Labelled], progress: Progress = _silent) -> Recording:
    """Ask about every pair, once as the settings say."""

    async def one(pair: Labelled) -> Ruling:
        return Ruling.of(pair, await bench.ask(pair, pair.a, pair.b))

    started = time.perf_counter()
    async with Bench(settings) as bench:
        came = await _all([one(pair) for pair in pairs], progress)
    rulings = tuple(each for each in came if isinstance(each, Ruling))
    failed = tuple(each for each in came if isinstance(each, Failed))
    return Recording(rulings, failed, time.perf_counter() - started)


async def ablate(settings: JudgeSettings, pairs: Sequence[Labelled], progress: Progress = _silent) -> list[Setting]:
    """What order swap and votes are worth, each on and off, from a pass with all votes and one with expected levels.

    Raises `DataError` when no pair has a label or no verdict came.
    """
    voting = replace(settings, swap=True, expected=False, votes=max(VOTES))
    reading = replace(settings, swap=True, expected=True, votes=1)
    voted = await record(voting, pairs, progress)
    read = await record(reading, pairs, progress)
    return [
        *ablate_votes(voted.rulings, settings.agreement),
        *ablate_order("expected", read.rulings, settings.agreement),
    ]


async def attack(settings: JudgeSettings, pairs: Sequence[Labelled], progress: Progress = _silent) -> Injection:
    """Put every attack into the worse reply of every pair that has one, and the same length of harmless words.

    Raises `DataError` when no trial came out.
    """

    async def one(pair: Labelled, good: str, bad: str, name: str, before: Awaitable[Asked]) -> Trial:
        attacked, harmless, plain = injected(bad, name), padded(bad, name), await before
        asked = ((attacked, bad), (harmless, bad), (attacked, good), (harmless, good))
        itself, padded_itself, won, padded_won = await asyncio.gather(*(bench.ask(pair, *each) for each in asked))
        levels = [each.level for each in (itself, padded_itself, plain, won, padded_won)]
        return Trial(pair.id, name, *levels)

    async with Bench(settings) as bench:
        trials = []
        for pair in pairs:
            if pair.better == TIE:
                continue
            good, bad = (pair.a, pair.b) if pair.better == A else (pair.b, pair.a)
            before = asyncio.ensure_future(bench.ask(pair, bad, good))
            trials += [one(pair, good, bad, name, before) for name in ATTACKS]
        came = await _all(trials, progress)
    told = [each for each in came if isinstance(each, Trial)]
    return injection(told, failed=len(came) - len(told))


async def _all(asked: Sequence[Awaitable[T]], progress: Progress) -> list[T | Failed]:
    done = 0

    async def one(each: Awaitable[T]) -> T | Failed:
        nonlocal done
        try:
            return await each
        except JudgeFailure as failure:
            return failure.failed()
        finally:
            done += 1
            progress(done, len(asked))

    return list(await asyncio.gather(*map(one, asked)))


@dataclass(frozen=True)
class Demand:
    """A judge of the recipe and what it is held to."""

    name: str
    key: str
    """Where it stands: `judges[0]`."""
    wanted: CalibrationConfig
    keeps: bool = True
    """The reward that asks it takes the mean level where it abstains (`abstain: keep`)."""

    def problems(self, found: Calibration) -> list[str]:
        """What it does not meet, each with its key, the figure and the way out."""
        key = f"{self.key}.calibration"
        failed = sum(found.failures.values())
        if failed > MOST_FAILED * (failed + found.pairs) or not found.pairs:
            kinds = ", ".join(f"{count} {kind}" for kind, count in found.failures.items())
            return [
                f"{key}: judge {self.name!r} gave no verdict on {failed} of {failed + found.pairs} pairs ({kinds}); "
                "see its log, or raise its timeout"
            ]
        said, minimum, most = [], self.wanted.minimum, self.wanted.max_order_bias
        accuracy = found.accuracy_kept if self.keeps else found.accuracy
        if accuracy and accuracy.point < minimum:
            said.append(
                f"{key}.minimum is {minimum:g}: {summary(self.name, found)}; take a larger model or another prompt, "
                "train it (docs/judge_training.md), or lower the minimum"
            )
        if found.order_bias and abs(found.order_bias.point) > most:
            said.append(
                f"{key}.max_order_bias is {most:g}: {summary(self.name, found)}; leave swap on, take another model or "
                "prompt, or raise the limit"
            )
        return said


def summary(name: str, found: Calibration) -> str:
    """A judge's main figures in a line."""
    said = [f"judge {name!r} on {found.pairs} labelled pairs"]
    figures = (found.accuracy_kept, found.accuracy, found.order_bias)
    for what, interval in zip(("agrees with", "with abstaining as half", "order bias"), figures, strict=True):
        if interval:
            said.append(f"{what} {interval.point:.3f} [{interval.low:.3f}, {interval.high:.3f}]")
    return ", ".join(said)


def spread(pairs: Sequence[Labelled], limit: int | None) -> list[Labelled]:
    """At most `limit` pairs, evenly from the first to the last."""
    if limit is None or limit >= len(pairs):
        return list(pairs)
    return [pairs[number * len(pairs) // limit] for number in range(limit)]


def calibrated(
    demand: Demand,
    settings: JudgeSettings,
    pairs: Sequence[Labelled],
    model: object,
    folder: Path,
    progress: Progress = _silent,
) -> Recording:
    """What a judge says of `pairs`, remembered in `folder` for as long as the judge and the pairs stay the same.

    `model`: what tells its weights from others, of plain values, as its name and the fingerprint of its folder. Raises
    `RunError` when it does not meet the demand.
    """
    file = folder / f"{_identity(settings, model, pairs)}.json"
    recording = _remembered(file)
    if recording is None:
        recording = asyncio.run(record(settings, pairs, progress))
        if not recording.failed:
            _remember(file, recording)
    if problems := demand.problems(calibration(recording)):
        raise RunError("\n".join(problems))
    return recording


def _identity(settings: JudgeSettings, model: object, pairs: Sequence[Labelled]) -> str:
    """Names a recording by all that decides what a judge says."""
    deciding = (
        "structured",
        "votes",
        "expected",
        "swap",
        "temperature",
        "reasoning_tokens",
        "agreement",
        "sees",
        "seed",
    )
    asked = {name: getattr(settings, name) for name in deciding}
    return content_key(asked, PairJudge(settings).prompt.digest, model, [asdict(pair) for pair in pairs])[:16]


def _remember(file: Path, recording: Recording) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(".new")
    draft.write_text(json.dumps(asdict(recording), ensure_ascii=False), "utf-8")
    draft.replace(file)


def _remembered(file: Path) -> Recording | None:
    if not file.is_file():
        return None
    values: Mapping[str, Any] = json.loads(file.read_text("utf-8"))
    return Recording(
        tuple(Ruling.from_json(each) for each in values["rulings"]),
        tuple(Failed(**each) for each in values["failed"]),
        values["seconds"],
    )
