"""What a run measures before and after: the words that it hears, or the speech that it makes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from rlhf_platform.evaluation import speech
from rlhf_platform.evaluation.report import EvalResult, as_lines, compare, evaluate, examples, lines, render
from rlhf_platform.evaluation.speech import QUALITY, SpeechResult, read_speech, write_speech
from rlhf_platform.train.context import RunContext
from rlhf_platform.train.conversing import Dialogue
from rlhf_platform.train.decoding import decode
from rlhf_platform.train.drafting import guesses
from rlhf_platform.train.measuring import heldout_means
from rlhf_platform.train.team import Rewards, Rollouts
from rlhf_platform.types import Prompt

BEFORE, AFTER = "before RL", "after RL"
"""What the evaluations before and after training are called."""


class Measure(Protocol):
    """What is measured in a branch."""

    def evaluate(
        self, run: RunContext, label: str, rollouts: Rollouts, rewards: Rewards, prompts: Sequence[Prompt], step: int
    ) -> tuple[Any, dict[str, float]]:
        """What the policy makes of the held-out prompts, written down, and its metrics."""
        ...

    def read(self, run: RunContext, label: str) -> Any:
        """What `evaluate` wrote under that label; None if it did not."""
        ...

    def report(
        self, run: RunContext, start: str, prompts: Sequence[Prompt], before: Any, after: Any, largest: float
    ) -> None:
        """Tell a person, and write results.json. `largest`: log-prob difference of the whole run."""
        ...


class Hearing:
    """Word error rate of what it hears."""

    def evaluate(
        self, run: RunContext, label: str, rollouts: Rollouts, rewards: Rewards, prompts: Sequence[Prompt], step: int
    ) -> tuple[EvalResult, dict[str, float]]:
        samples = decode(rollouts, prompts, run.recipe)
        result = evaluate(label, prompts, [s.text for s in samples], run.recipe.evaluation.normalizer)
        name = label.replace(" ", "_")
        run.folder.write(f"evaluation_{name}.json", result.to_json())
        measured = {"heldout_wer": result.total.wer, **heldout_means(rewards.evaluate(samples))}
        run.wandb.metrics(step, measured)
        run.wandb.samples(step, f"heldout_{name}", rewards.score(samples, step)[0])
        terms = "".join(f", {term} {value:.4g}" for term, value in measured.items() if term != "heldout_wer")
        run.display.line(f"held-out WER {label}: {100 * result.total.wer:.2f} % on {len(prompts)} clips{terms}")
        if said := guesses(rollouts, run.recipe):
            run.display.line(said)
        return result, measured

    def read(self, run: RunContext, label: str) -> EvalResult | None:
        path = run.folder.path / f"evaluation_{label.replace(' ', '_')}.json"
        return EvalResult.from_json(path.read_text("utf-8")) if path.is_file() else None

    def report(
        self,
        run: RunContext,
        start: str,
        prompts: Sequence[Prompt],
        before: EvalResult,
        after: EvalResult,
        largest: float,
    ) -> None:
        recipe, folder, display = run.recipe, run.folder, run.display
        config = recipe.evaluation
        if after is not before:
            run.wandb.comparison(recipe.steps, prompts, before, after)
        rows = compare([before], [after], resamples=config.bootstrap_samples, confidence=config.confidence)
        title = "Held-out word error rate, %, before and after RL"
        display.show(render(rows, title))
        display.line(f"largest log-prob difference rollout vs learner in the whole run: {largest:.1e}")
        folder.write("report.txt", "\n".join(lines(rows, title)) + "\n")
        folder.write("examples.md", examples(before, after, count=20))
        difference = rows[0].difference
        results = {
            "start_checkpoint": start,
            "wer_before": before.total.wer,
            "wer_after": after.total.wer,
            "wer_difference": difference.point,
            "wer_difference_interval": [difference.low, difference.high],
            "confidence": difference.confidence,
            "max_logprob_diff": largest,
            "steps": recipe.steps,
            "seed": recipe.seed,
        }
        folder.write("results.json", json.dumps(results, indent=1))


class Speech:
    """What `evaluation.rewards` say of how it speaks, and how often it is better than before."""

    def evaluate(
        self, run: RunContext, label: str, rollouts: Rollouts, rewards: Rewards, prompts: Sequence[Prompt], step: int
    ) -> tuple[SpeechResult, dict[str, float]]:
        samples = decode(rollouts, prompts, run.recipe)
        scored = rewards.evaluate(samples)
        sounds = rewards.sounds(samples)
        result = write_speech(run.folder.path, label, scored, sounds)
        measured = {"heldout_quality": result.mean(QUALITY), **heldout_means(scored)}
        measured["heldout_ended"] = result.mean(speech.ENDED)
        measured["heldout_unscored"] = result.mean(speech.UNSCORED)
        run.wandb.metrics(step, measured)
        run.wandb.speech(step, f"heldout_{label.replace(' ', '_')}", scored, sounds)
        terms = "".join(f", {term.removeprefix('heldout/')} {value:.4g}" for term, value in measured.items())
        run.display.line(f"held-out speech {label}, {len(prompts)} prompts{terms}")
        return result, measured

    def read(self, run: RunContext, label: str) -> SpeechResult | None:
        name = label.replace(" ", "_")
        return read_speech(run.folder.path, name) if (run.folder.path / f"speech_{name}.jsonl").is_file() else None

    def report(
        self,
        run: RunContext,
        start: str,
        prompts: Sequence[Prompt],
        before: SpeechResult,
        after: SpeechResult,
        largest: float,
    ) -> None:
        config = run.recipe.evaluation
        results = {"before": before} if after is before else {"before": before, "after": after}
        shown = speech.table(results, "Held-out speech", config.confidence, config.bootstrap_samples)
        run.display.show(shown)
        run.display.line(f"largest log-prob difference rollout vs learner in the whole run: {largest:.1e}")
        run.folder.write("report.txt", "\n".join(as_lines(shown)) + "\n")
        duel = speech.win_rate(before, after)
        rate = duel.rate if duel else None
        scores = [*dict.fromkeys([*before.names, *after.names]), speech.ENDED, speech.UNSCORED]
        found = {
            "start_checkpoint": start,
            "heldout_before": {name: before.mean(name) for name in scores},
            "heldout_after": {name: after.mean(name) for name in scores},
            "win_rate": rate.point if rate else None,
            "win_rate_interval": [rate.low, rate.high] if rate else None,
            "confidence": config.confidence,
            "max_logprob_diff": largest,
            "steps": run.recipe.steps,
            "seed": run.recipe.seed,
        }
        run.folder.write("results.json", json.dumps(found, indent=1))


def measure_of(branch: str) -> Measure:
    """What a run of the branch measures."""
    kinds: dict[str, type[Measure]] = {"asr": Hearing, "tts": Speech, "realtime": Dialogue}
    return kinds[branch]()


def first_evaluation(run: RunContext, rollouts: Rollouts, rewards: Rewards, prompts: Sequence[Prompt]) -> Any:
    """The evaluation before RL: that of the run's first start when it goes on, that of the stage before where it was
    handed on, else a new one."""
    measure = measure_of(run.recipe.branch)
    if found := measure.read(run, BEFORE):
        run.display.line(f"held-out evaluation {BEFORE}: it is there already")
        return found
    return measure.evaluate(run, BEFORE, rollouts, rewards, prompts, step=0)[0]


def last_label(folder: Path) -> str | None:
    """The label of the latest evaluation of speech in a run's folder; None where it has none."""
    there = [label for label in (AFTER, BEFORE) if (folder / f"speech_{label.replace(' ', '_')}.jsonl").is_file()]
    return there[0] if there else None


def last_speech(folder: Path) -> SpeechResult | None:
    """That evaluation."""
    label = last_label(folder)
    return read_speech(folder, label) if label else None
