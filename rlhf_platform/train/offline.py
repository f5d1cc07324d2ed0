"""A run that learns from judged answers: rounds between two evaluations, or a reward model."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

from rlhf_platform import random_state
from rlhf_platform.data.pairs import Judgement, check_clips, check_prompts, read_pairs
from rlhf_platform.recipe.preferences import PreferenceConfig
from rlhf_platform.tracking.checkpoints import Checkpoint
from rlhf_platform.tracking.run_dir import portable
from rlhf_platform.train.cluster import Placement, placed
from rlhf_platform.train.context import (
    PROBE_CLIPS,
    RunContext,
    prove_checkpoint,
    watched,
)
from rlhf_platform.train.links import link
from rlhf_platform.train.measures import AFTER, first_evaluation, measure_of
from rlhf_platform.train.preparing.prepare import Data
from rlhf_platform.train.rounds import RoundResult, preference_rounds
from rlhf_platform.train.stages import JudgedTrainer
from rlhf_platform.train.team import Rewards, Rollouts
from rlhf_platform.types import Prompt


def learn_offline(run: RunContext, data: Data, model: str, start: Checkpoint | None) -> None:
    """The rounds of an offline algorithm. What samples and scores is started only where something is to be sampled."""
    recipe, folder, display = run.recipe, run.folder, run.display
    judgements = _judgements(run, data)
    trains_policy = isinstance(recipe.algorithm, PreferenceConfig)
    folder.status(phase="start actors")
    with placed(recipe) as placement:
        trainer = JudgedTrainer(recipe, placement, display)
        if not trains_policy and judgements is not None:
            _keep_reward_model(run, _rounds(run, data, model, start, judgements, None, trainer))
            return
        policy = start.policy if start and trains_policy else model
        sampling = start_sampling(run, placement, policy, data.rl, recipe.learner.workers)
        if start:
            sampling[0].set_random_states(start.state()["actors"]["rollout"])
            sampling[1].load_states(start.state()["actors"]["rewards"])
        if not trains_policy:
            _keep_reward_model(run, _rounds(run, data, model, start, judgements, sampling, trainer))
            return
        folder.status(phase="evaluate before")
        measure = measure_of(recipe.branch)
        before = first_evaluation(run, *sampling, data.evaluation)
        last = _rounds(run, data, model, start, judgements, sampling, trainer)
        folder.status(phase="evaluate after")
        after, _ = measure.evaluate(run, AFTER, *sampling, data.evaluation, recipe.steps)
        folder.status(phase="checkpoint")
        shutil.copytree(last, folder.checkpoint, copy_function=link)
        served = prove_checkpoint(run, sampling[0], trainer.checkpoint_difference, data.rl[:PROBE_CLIPS])
    measure.report(run, model, data.evaluation, before, after, served)


def _judgements(run: RunContext, data: Data) -> list[Judgement] | None:
    """Those of `data.pairs`, every clip of theirs decoded once; of speech they are about prompts of the manifest.

    Raises DataError with all bad rows.
    """
    path = run.recipe.data.pairs
    if path is None:
        return None
    found = read_pairs(path, run.recipe.algorithm)
    if run.recipe.branch == "tts":
        check_prompts(path, found, {prompt.id for prompt in (*data.train, *data.rl, *data.evaluation)})
    with run.display.phase("check clips of the pairs", len(found)) as phase:
        check_clips(path, found, run.recipe.backbone.window, lambda done, total: phase.update(done))
    run.display.line(f"pairs: {len(found)} from {path}")
    return found


def start_sampling(
    run: RunContext, placement: Placement, policy: Path | str, prompts: Sequence[Prompt], learners: int
) -> tuple[Rollouts, Rewards]:
    """What samples and scores, ready. `learners`: places of the placement that are theirs."""
    run.display.line("starting rollout and reward actors")
    recipe = run.recipe
    rollouts = Rollouts(recipe, placement, count(), policy, prompts[:PROBE_CLIPS])
    rewards = Rewards(run.loaded, placement, count(recipe.rollout.workers + learners), policy)
    rewards.ready()
    rollouts.ready()
    return rollouts, rewards


def _rounds(
    run: RunContext,
    data: Data,
    model: str,
    start: Checkpoint | None,
    judgements: Sequence[Judgement] | None,
    sampling: tuple[Rollouts, Rewards] | None,
    trainer: JudgedTrainer,
) -> Path:
    """The rounds after `start`, each written down, watched and kept; the last checkpoint. Raises MonitorError."""
    recipe, folder = run.recipe, run.folder
    folder.status(phase="rounds")
    history: list[Mapping[str, float]] = [*folder.history()]
    done = int(start.state()["round"]) if start else 0
    last = start.policy if start else Path(model)
    origin = {"start_checkpoint": model, "data": data.digest, "wandb_id": run.wandb.id}
    for result in preference_rounds(
        recipe,
        sampling,
        trainer,
        data.rl,
        model,
        folder.path,
        data.rl[:PROBE_CLIPS],
        judgements,
        done,
        last,
        tuple(history),
    ):
        metrics, last = dict(result.metrics), result.checkpoint
        if sampling and recipe.evaluation.every and result.step < recipe.steps:
            measure = measure_of(recipe.branch)
            metrics |= measure.evaluate(run, f"round {result.number}", *sampling, data.evaluation, result.step)[1]
        history.append(metrics)
        folder.step(result.step, metrics, [prompt.id for prompt in result.prompts], result.failed)
        folder.status(step=result.step)
        run.wandb.metrics(result.step, metrics)
        run.display.line(f"round {result.number}, step {result.step}/{recipe.steps}: {_numbers(metrics)}")
        stopped = watched(run, history)
        if recipe.checkpoint.every:
            _save(run, result, metrics, sampling, origin)
        if stopped:
            raise stopped
    return last


def _save(
    run: RunContext,
    result: RoundResult,
    metrics: Mapping[str, float],
    sampling: tuple[Rollouts, Rewards] | None,
    origin: Mapping[str, str],
) -> None:
    """A checkpoint after the round, as those of RL; the weights are those of the round, linked."""
    recipe = portable(run.loaded.yaml, run.folder.path)
    actors = {"rollout": sampling[0].random_states(), "rewards": sampling[1].states()} if sampling else {}
    state = {
        "step": result.step,
        "round": result.number,
        "recipe": hashlib.sha256(recipe.encode()).hexdigest(),
        "random": random_state.capture(),
        "actors": actors,
        **origin,
    }
    score = -metrics["heldout_wer"] if "heldout_wer" in metrics else metrics.get("reward", 0.0)
    with run.checkpoints.writing(result.step, score) as draft:
        shutil.copytree(result.checkpoint, draft / "policy", copy_function=link)
        (draft / "recipe.yaml").write_text(recipe, "utf-8")
        (draft / "state.json").write_text(json.dumps(state))
    run.checkpoints.prune(run.recipe.checkpoint)
    run.folder.status(checkpoint=result.step)


def _keep_reward_model(run: RunContext, source: Path) -> None:
    """The reward model where a policy would be, and what it got right."""
    (last,) = run.folder.history()[-1:]
    shutil.copytree(source, run.folder.checkpoint, copy_function=link)
    known = ("pair_accuracy", "heldout_pair_accuracy", "heldout_calibration_error", "reward_margin", "loss")
    results = {name: last[name] for name in known if name in last}
    run.folder.write("results.json", json.dumps(results | {"steps": run.recipe.steps, "seed": run.recipe.seed}))
    run.display.line(f"reward model {run.folder.checkpoint}: {_numbers(last)}")


def _numbers(metrics: Mapping[str, float]) -> str:
    """What a person asks of a round."""
    names = (
        "loss",
        "pair_accuracy",
        "heldout_pair_accuracy",
        "heldout_calibration_error",
        "reward_margin",
        "pairs",
        "reward",
        "seconds",
    )
    return "  ".join(f"{name} {metrics[name]:.4g}" for name in names if name in metrics)
