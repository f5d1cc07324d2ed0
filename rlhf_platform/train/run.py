"""A run from recipe to report: data, warm start, actors, evaluation, RL, evaluation, checkpoint."""

import json
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from rlhf_platform.errors import PlatformError, SyncError
from rlhf_platform.evaluation.report import EvalResult, compare, evaluate, examples, lines, render
from rlhf_platform.recipe.load import LoadedRecipe
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.tracking.progress import Display, step_numbers
from rlhf_platform.tracking.run_dir import RunDir
from rlhf_platform.tracking.wandb_log import WandbLog
from rlhf_platform.train.cluster import cluster, placed
from rlhf_platform.train.loop import rl_steps
from rlhf_platform.train.prepare import prepare_data, prepare_model
from rlhf_platform.train.sync import TOLERANCE, sync
from rlhf_platform.train.team import Team
from rlhf_platform.types import Prompt

PROBE_CLIPS = 4


def run(loaded: LoadedRecipe) -> Path:
    """Run a checked recipe; returns the run's folder. Raises PlatformError for what a user can mend."""
    recipe, display = loaded.recipe, Display()
    folder = RunDir(Path(recipe.runs_dir), recipe.name)
    folder.write("recipe.yaml", loaded.yaml)
    display.line(f"run {folder.path}")
    with _accounted(folder, display), cluster(recipe):
        wandb = WandbLog(recipe.tracking, folder.path.name, folder.path, yaml.safe_load(loaded.yaml))
        try:
            _run(loaded, folder, display, wandb)
        except BaseException:
            wandb.close(exit_code=1)
            raise
        wandb.close(exit_code=0)
    display.line(f"done: {folder.path}")
    return folder.path


def _run(loaded: LoadedRecipe, folder: RunDir, display: Display, wandb: WandbLog) -> None:
    recipe = loaded.recipe
    folder.status(phase="data")
    data = prepare_data(recipe, display)
    folder.status(phase="warm start")
    model = prepare_model(recipe, data, display)
    probe = data.rl[:PROBE_CLIPS]

    folder.status(phase="start actors")
    display.line("starting rollout, learner and reward actors")
    with placed(recipe) as placement:
        team = Team(loaded, placement, Path(model), probe)
        display.line(f"actors ready; {team.learners.trainable_parameters:,} trainable parameters")
        proof = sync(team.learners, team.rollouts, 0, probe, recipe.backbone.dtype)
        display.line(f"rollout and learner agree on the warm start: log-probs within {proof.difference:.1e}")

        folder.status(phase="evaluate before")
        before = _evaluate("before RL", team, data.evaluation, folder, display, wandb, step=0)

        folder.status(phase="rl")
        largest = proof.difference
        with display.phase("RL step", recipe.steps) as phase:
            for result in rl_steps(recipe, team, data.rl, probe):
                folder.metrics(result.step, result.metrics)
                folder.status(step=result.step)
                wandb.metrics(result.step, result.metrics)
                phase.update(result.step, step_numbers(result.metrics), always=True)
                largest = max(largest, result.metrics["logprob_diff_max"], result.metrics["probe_diff_max"])

        after = before
        if recipe.steps:
            folder.status(phase="evaluate after")
            after = _evaluate("after RL", team, data.evaluation, folder, display, wandb, step=recipe.steps)
            wandb.comparison(recipe.steps, data.evaluation, before, after)
        folder.status(phase="checkpoint")
        team.learners.save(folder.checkpoint)
        served = _prove_checkpoint(recipe, team, folder.checkpoint, probe)
        display.line(
            f"checkpoint {folder.checkpoint}: loaded in Transformers and served by vLLM, log-probs within {served:.1e}"
        )
    _report(recipe, str(model), before, after, max(largest, served), folder, display)


def _evaluate(
    label: str,
    team: Team,
    prompts: Sequence[Prompt],
    folder: RunDir,
    display: Display,
    wandb: WandbLog,
    step: int,
) -> EvalResult:
    samples = team.rollouts.greedy(prompts)
    result = evaluate(label, prompts, [s.text for s in samples])
    name = label.replace(" ", "_")
    folder.write(f"evaluation_{name}.json", result.to_json())
    wandb.metrics(step, {"heldout_wer": result.total.wer})
    wandb.samples(step, f"heldout_{name}", team.rewards.score(samples))
    display.line(f"held-out WER {label}: {100 * result.total.wer:.2f} % on {len(prompts)} clips")
    return result


def _prove_checkpoint(recipe: Recipe, team: Team, path: Path, probe: Sequence[Prompt]) -> float:
    """Serve the checkpoint from disk in vLLM, load it anew in Transformers, compare their log-probs."""
    team.rollouts.restart(path, probe)
    answers = team.rollouts.probe(probe, seed=recipe.steps)
    difference = max(team.learners.checkpoint_difference(path, samples) for samples in answers)
    if not difference <= TOLERANCE[recipe.backbone.dtype]:
        raise SyncError(
            f"checkpoint {path}: vLLM and Transformers differ by {difference:.2g} nats on the same clips: do not use it"
        )
    return difference


def _report(
    recipe: Recipe, start: str, before: EvalResult, after: EvalResult, largest: float, folder: RunDir, display: Display
) -> None:
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


@contextmanager
def _accounted(folder: RunDir, display: Display) -> Iterator[None]:
    """Write into status.json how the run ended, also when it is interrupted (Ctrl-C or SIGTERM)."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    folder.status()
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        # Ray answers SIGTERM with SystemExit once it is up.
        folder.status(state="interrupted")
        display.line(f"interrupted; {folder.path / 'status.json'} says how far it came")
        raise KeyboardInterrupt from None
    except PlatformError as error:
        folder.status(state="failed", error=str(error))
        raise
    except BaseException as error:
        folder.status(state="failed", error=f"{type(error).__name__}: {error}")
        raise
    else:
        folder.status(state="finished", phase="done")
    finally:
        signal.signal(signal.SIGTERM, previous)
