"""A run from recipe to report: data, warm start, actors, evaluation, RL, evaluation, checkpoint."""

import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rlhf_platform.data.sampler import PromptSampler
from rlhf_platform.evaluation.gate_entries import read_gate
from rlhf_platform.recipe.algorithms import OnlineConfig
from rlhf_platform.recipe.load import LoadedRecipe
from rlhf_platform.recipe.preferences import MakePairs
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.tracking.checkpoints import Checkpoint, Checkpoints
from rlhf_platform.tracking.progress import Display, step_numbers
from rlhf_platform.tracking.run_dir import RunDir, portable
from rlhf_platform.tracking.wandb_log import WandbLog
from rlhf_platform.train.accounting import accounted
from rlhf_platform.train.beginning import begin
from rlhf_platform.train.checkpointing import restore, save, score, started_from
from rlhf_platform.train.cluster import cluster, placed
from rlhf_platform.train.context import (
    PROBE_CLIPS,
    RunContext,
    prove_checkpoint,
    watched,
)
from rlhf_platform.train.gate import run_gate
from rlhf_platform.train.judging.demands import check_judges
from rlhf_platform.train.judging.drift import Watched, look_again
from rlhf_platform.train.loop import rl_steps
from rlhf_platform.train.measures import AFTER, first_evaluation, measure_of
from rlhf_platform.train.measuring import heldout_gap
from rlhf_platform.train.offline import learn_offline
from rlhf_platform.train.pairing import make_pairs
from rlhf_platform.train.preparing.prepare import Data, prepare_data, prepare_model
from rlhf_platform.train.preparing.speech import hearing
from rlhf_platform.train.rehearsing import Rehearsing
from rlhf_platform.train.sync import sync
from rlhf_platform.train.team import Team
from rlhf_platform.train.warm_start import keep_warm_start
from rlhf_platform.types import Prompt


def run(loaded: LoadedRecipe) -> Path:
    """Run a checked recipe; returns the run's folder. Raises PlatformError for what a user can mend."""
    kept, folder = begin(loaded, loaded.recipe.name, loaded.recipe.steps)
    return carry_out(kept, folder, None)


def carry_out(loaded: LoadedRecipe, folder: RunDir, start: Checkpoint | None) -> Path:
    """Run a checked recipe in its folder, from the beginning or from a checkpoint; returns the folder."""
    recipe, display = loaded.recipe, Display()
    display.line(f"run {folder.path}" + (f", goes on after step {start.step}" if start else ""))
    with accounted(folder, display), cluster(recipe):
        wandb_id = start.state()["wandb_id"] if start else secrets.token_hex(4)
        wandb = WandbLog(recipe.tracking, folder.path.name, folder.path, yaml.safe_load(loaded.yaml), wandb_id)
        try:
            _run(RunContext(loaded, folder, display, wandb, Checkpoints(folder.path)), start)
        except BaseException:
            wandb.close(exit_code=1)
            raise
        wandb.close(exit_code=0)
    if recipe.gate:
        started = json.loads((folder.path / "results.json").read_text("utf-8"))["start_checkpoint"]
        run_gate(read_gate(Path(recipe.gate)), started, str(folder.checkpoint), folder.path / "gate", display)
    display.line(f"done: {folder.path}")
    return folder.path


def _run(run: RunContext, start: Checkpoint | None) -> None:
    recipe, folder, display = run.recipe, run.folder, run.display
    folder.status(phase="data")
    data = prepare_data(recipe, display)
    folder.status(phase="warm start")
    model = started_from(start, data.digest) if start else str(prepare_model(recipe, data, display))
    served = model if recipe.branch == "tts" else str(hearing(recipe, model))
    if isinstance(recipe.algorithm, MakePairs):
        make_pairs(run, data, served)
    elif recipe.steps == 0 and Path(model).is_dir():
        keep_warm_start(run, data, Path(model), Path(served))
    elif isinstance(recipe.algorithm, OnlineConfig):
        _learn_online(run, data, model, served, start)
    else:
        learn_offline(run, data, served, start)


def _learn_online(run: RunContext, data: Data, model: str, served: str, start: Checkpoint | None) -> None:
    """RL on the policy's own samples, between two evaluations. `served`: `model` in the form of the recipe's branch."""
    recipe, folder, display = run.recipe, run.folder, run.display
    probe = data.rl[:PROBE_CLIPS]
    sampler = PromptSampler(data.rl, recipe.rollout.prompts_per_step, recipe.seed)
    origin = {"start_checkpoint": model, "data": data.digest, "wandb_id": run.wandb.id}

    folder.status(phase="start actors")
    display.line("starting rollout, learner and reward actors")
    with placed(recipe) as placement:
        team = Team(run.loaded, placement, served, probe)
        display.line(f"actors ready; {team.learners.trainable_parameters:,} trainable parameters")
        addresses = {name: asked["judge"] for name, asked in team.rewards.judges.keywords().items()}
        judges = check_judges(recipe, addresses, display)
        done = start.step if start else 0
        if start:
            restore(start, team, sampler, drafts=recipe.rollout.speculative == "mtp")
        proof = sync(team.learners, team.rollouts, done, probe, recipe.backbone.dtype)
        display.line(f"rollout and learner agree on the start: log-probs within {proof.difference:.1e}")

        folder.status(phase="evaluate before")
        measure = measure_of(recipe.branch)
        before = first_evaluation(run, team.rollouts, team.rewards, data.evaluation)
        folder.status(phase="rl")
        rehearsing = Rehearsing(recipe, data.train, folder.history())
        train(run, team, sampler, data.evaluation, probe, done, origin, before, rehearsing, judges)
        folder.status(phase="evaluate after")
        after, _ = measure.evaluate(run, AFTER, team.rollouts, team.rewards, data.evaluation, recipe.steps)
        folder.status(phase="checkpoint")
        team.learners.save(folder.checkpoint)
        difference = prove_checkpoint(run, team.rollouts, team.learners.checkpoint_difference, probe)
    differences = [max(m["logprob_diff_max"], m["probe_diff_max"]) for m in folder.history()]
    measure.report(run, model, data.evaluation, before, after, max([proof.difference, difference, *differences]))


def train(
    run: RunContext,
    team: Team,
    sampler: PromptSampler,
    heldout: Sequence[Prompt],
    probe: Sequence[Prompt],
    done: int,
    origin: Mapping[str, str],
    before: Any,
    rehearsing: Rehearsing,
    judges: Sequence[Watched] = (),
) -> None:
    """The RL steps after `done`, each written down, watched and, where the recipe says so, evaluated and kept.

    `origin`: what a checkpoint says of where the run comes from. `before`: the evaluation before RL. `judges`: those
    that are asked again on the way. Raises MonitorError.
    """
    recipe, folder = run.recipe, run.folder
    history: list[Mapping[str, float]] = [*folder.history()]
    with run.display.phase("RL step", recipe.steps, done) as phase:
        for result in rl_steps(recipe, team, sampler, probe, done, tuple(history), rehearsing):
            step, metrics = result.step, {**result.metrics, **look_again(judges, result.step, run.display)}
            if _evaluates(recipe, step):
                measure = measure_of(recipe.branch)
                _, measured = measure.evaluate(run, f"step {step}", team.rollouts, team.rewards, heldout, step)
                metrics |= measured
                if "heldout_wer" in measured:
                    metrics["heldout_gap"] = heldout_gap([*history, metrics], before.total.wer)
            history.append(metrics)
            rehearsing.note(metrics)
            folder.step(step, metrics, [prompt.id for prompt in result.prompts], result.failed)
            folder.status(step=step)
            run.wandb.metrics(step, metrics)
            phase.update(step, step_numbers(metrics), always=True)
            stopped = watched(run, history)
            every = recipe.checkpoint.every
            if every and (stopped or step % every == 0 or step == recipe.steps):
                facts = {
                    "step": step,
                    "score": score(recipe.checkpoint, history),
                    "recipe": portable(run.loaded.yaml, folder.path),
                    **origin,
                }
                save(run.checkpoints, recipe.checkpoint, team, sampler, facts)
                folder.status(checkpoint=step)
            if stopped:
                raise stopped


def _evaluates(recipe: Recipe, step: int) -> bool:
    """Whether there is an evaluation on the way; after the last step only for the sake of its checkpoint."""
    if step == recipe.steps:
        return recipe.checkpoint.every > 0 and recipe.checkpoint.best_by == "heldout_wer"
    return recipe.evaluation.every > 0 and step % recipe.evaluation.every == 0
