"""What accompanies a run, and what every run does before and after it trains: evaluation, proof, report."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf_platform.errors import MonitorError, SyncError
from rlhf_platform.evaluation.report import EvalResult, compare, evaluate, examples, lines, render
from rlhf_platform.recipe.load import LoadedRecipe
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.tracking.checkpoints import Checkpoints
from rlhf_platform.tracking.progress import Display
from rlhf_platform.tracking.run_dir import RunDir
from rlhf_platform.tracking.wandb_log import WandbLog
from rlhf_platform.train.decoding import decode
from rlhf_platform.train.drafting import guesses
from rlhf_platform.train.measuring import heldout_means
from rlhf_platform.train.monitors import check_monitors
from rlhf_platform.train.sync import TOLERANCE
from rlhf_platform.train.team import Rewards, Rollouts
from rlhf_platform.types import Prompt, Sample

PROBE_CLIPS = 4

Difference = Callable[[Path, Sequence[Sample]], float]
"""Largest log-prob difference between a saved checkpoint, loaded anew in Transformers, and samples."""


@dataclass
class RunContext:
    """What accompanies a run from its start to its end."""

    loaded: LoadedRecipe
    folder: RunDir
    display: Display
    wandb: WandbLog
    checkpoints: Checkpoints

    @property
    def recipe(self) -> Recipe:
        return self.loaded.recipe


def first_evaluation(
    run: RunContext, rollouts: Rollouts, rewards: Rewards, prompts: Sequence[Prompt], *, resumed: bool
) -> EvalResult:
    """The evaluation before RL; that of the run's first start when it goes on."""
    path = run.folder.path / "evaluation_before_RL.json"
    if resumed and path.is_file():
        return EvalResult.from_json(path.read_text("utf-8"))
    return evaluate_policy(run, "before RL", rollouts, rewards, prompts, step=0)[0]


def evaluate_policy(
    run: RunContext, label: str, rollouts: Rollouts, rewards: Rewards, prompts: Sequence[Prompt], step: int
) -> tuple[EvalResult, dict[str, float]]:
    """What the policy says to the held-out clips, and what `evaluation.rewards` say of it."""
    samples = decode(rollouts, prompts, run.recipe)
    result = evaluate(label, prompts, [s.text for s in samples], run.recipe.evaluation.normalizer)
    name = label.replace(" ", "_")
    run.folder.write(f"evaluation_{name}.json", result.to_json())
    measured = heldout_means(rewards.evaluate(samples))
    run.wandb.metrics(step, {"heldout_wer": result.total.wer, **measured})
    run.wandb.samples(step, f"heldout_{name}", rewards.score(samples, step)[0])
    terms = "".join(f", {term} {value:.4g}" for term, value in measured.items())
    run.display.line(f"held-out WER {label}: {100 * result.total.wer:.2f} % on {len(prompts)} clips{terms}")
    if said := guesses(rollouts, run.recipe):
        run.display.line(said)
    return result, measured


def prove_checkpoint(
    recipe: Recipe, rollouts: Rollouts, difference_of: Difference, path: Path, probe: Sequence[Prompt]
) -> float:
    """Serve the checkpoint from disk in vLLM, load it anew in Transformers, compare their log-probs."""
    rollouts.restart(path, probe)
    answers = rollouts.probe(probe, seed=recipe.steps)
    difference = max(difference_of(path, samples) for samples in answers)
    if not difference <= TOLERANCE[recipe.backbone.dtype]:
        raise SyncError(
            f"checkpoint {path}: vLLM and Transformers differ by {difference:.2g} nats on the same clips: do not use it"
        )
    return difference


def report_run(run: RunContext, start: str, before: EvalResult, after: EvalResult, largest: float) -> None:
    recipe, folder, display = run.recipe, run.folder, run.display
    config = recipe.evaluation
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


def watched(run: RunContext, history: Sequence[Mapping[str, float]]) -> MonitorError | None:
    """Say what the monitors warn of; the error of one that is to stop the run, which is raised after a checkpoint."""
    try:
        for line in check_monitors(run.recipe.monitors, history):
            run.display.line(line)
    except MonitorError as error:
        return error
    return None
