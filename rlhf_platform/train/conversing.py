"""What a run of spoken dialogue measures: held-out turns, and the sessions that go on from them."""

import json
from collections.abc import Sequence

from rlhf_platform.data.simulator import ScriptedUser
from rlhf_platform.evaluation.dialogue import (
    EVASIVE,
    DialogueResult,
    difference,
    mean_interval,
    read_dialogue,
    win_rate,
    write_dialogue,
)
from rlhf_platform.evaluation.dialogue_report import longest_session, table, turn_table, write_session
from rlhf_platform.evaluation.report import as_lines
from rlhf_platform.evaluation.speech import ENDED, QUALITY, UNSCORED
from rlhf_platform.recipe.dialogue import DialogueConfig
from rlhf_platform.recipe.rewards import reward_name
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.train.context import RunContext
from rlhf_platform.train.decoding import decode
from rlhf_platform.train.measuring import heldout_means
from rlhf_platform.train.sessions import go_on
from rlhf_platform.train.team import Rewards, Rollouts
from rlhf_platform.types import Prompt, Sample


class Dialogue:
    """What `evaluation.rewards` say of its replies, how often they are better than before, and how often it excuses
    itself. Sessions are played to their end with the recorded user, whoever speaks in training."""

    def evaluate(
        self, run: RunContext, label: str, rollouts: Rollouts, rewards: Rewards, prompts: Sequence[Prompt], step: int
    ) -> tuple[DialogueResult, dict[str, float]]:
        samples = played(run, rollouts, prompts)
        scored = rewards.evaluate(samples)
        result = write_dialogue(run.folder.path, label, scored)
        measured = {"heldout_quality": result.mean(QUALITY), **heldout_means(scored)}
        measured |= {f"heldout_{name}": result.mean(name) for name in (ENDED, UNSCORED, EVASIVE)}
        run.wandb.metrics(step, measured)
        run.wandb.dialogue(step, f"heldout_{label.replace(' ', '_')}", result)
        terms = "".join(f", {term.removeprefix('heldout/')} {value:.4g}" for term, value in measured.items())
        run.display.line(f"held-out dialogue {label}, {len(samples)} turns{terms}")
        return result, measured

    def read(self, run: RunContext, label: str) -> DialogueResult | None:
        file = run.folder.path / f"dialogue_{label.replace(' ', '_')}.jsonl"
        return read_dialogue(run.folder.path, label) if file.is_file() else None

    def report(
        self,
        run: RunContext,
        start: str,
        prompts: Sequence[Prompt],
        before: DialogueResult,
        after: DialogueResult,
        largest: float,
    ) -> None:
        config = run.recipe.evaluation
        how = config.confidence, config.bootstrap_samples
        results = {"before": before} if after is before else {"before": before, "after": after}
        won_by = [QUALITY, *judged_scores(run.recipe)]
        tables = [table(results, "Held-out dialogue", *how, won_by), turn_table(results, QUALITY, *how)]
        for shown in tables:
            run.display.show(shown)
        run.display.line(f"largest log-prob difference rollout vs learner in the whole run: {largest:.1e}")
        run.folder.write("report.txt", "\n".join(line for shown in tables for line in as_lines(shown)) + "\n")
        session = write_session(run.folder.path, results, longest_session(before))
        run.display.line(f"one session to read and to hear: {session}")
        wins = {name: _win_rate(before, after, name, *how) for name in won_by}
        rate = wins[QUALITY]
        found = {
            "start_checkpoint": start,
            "win_rate": rate and rate[0],
            "win_rate_interval": rate and rate[1:],
            "win_rates": wins,
            "heldout_before": _means(before, *how),
            "heldout_after": _means(after, *how),
            "heldout_difference": _differences(before, after, *how),
            "confidence": config.confidence,
            "max_logprob_diff": largest,
            "steps": run.recipe.steps,
            "seed": run.recipe.seed,
        }
        run.folder.write("results.json", json.dumps(found, indent=1))


def played(run: RunContext, rollouts: Rollouts, prompts: Sequence[Prompt]) -> list[Sample]:
    """The policy's answers to the held-out prompts, and to what the recorded user says afterwards."""
    whole = DialogueConfig(turns=run.recipe.dialogue.turns, multi_turn=1.0)
    first = decode(rollouts, prompts, run.recipe)
    return [*go_on(first, lambda later, seed: rollouts.answer(later), 1, whole, ScriptedUser(), 0).samples]


def judged_scores(recipe: Recipe) -> list[str]:
    """The scores by which the judges of the evaluation say how good a reply is."""
    return [f"{reward_name(each)}.{each.part}" for each in recipe.evaluation.rewards if each.judge and each.part]


def _win_rate(
    before: DialogueResult, after: DialogueResult, name: str, confidence: float, resamples: int
) -> list[float] | None:
    """With its interval; None when not one turn can be judged by that score."""
    duel = win_rate(before, after, name, confidence=confidence, resamples=resamples)
    return [duel.rate.point, duel.rate.low, duel.rate.high] if duel else None


def _means(result: DialogueResult, confidence: float, resamples: int) -> dict[str, list[float]]:
    """Each score with its interval over sessions."""
    names = (*result.names, ENDED, UNSCORED, EVASIVE)
    intervals = {name: mean_interval(result, name, confidence, resamples) for name in names}
    return {name: [found.point, found.low, found.high] for name, found in intervals.items()}


def _differences(
    before: DialogueResult, after: DialogueResult, confidence: float, resamples: int
) -> dict[str, list[float]]:
    intervals = {name: difference(before, after, name, confidence, resamples) for name in (*before.names, EVASIVE)}
    return {name: [found.point, found.low, found.high] for name, found in intervals.items() if found}
