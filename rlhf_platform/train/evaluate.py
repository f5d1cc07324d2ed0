"""Evaluation of a checkpoint and nothing else: no learner, no training."""

import json
from dataclasses import replace
from itertools import chain, count
from pathlib import Path

from policies.mtp.heads import check_folder
from rlhf_platform.errors import RunError
from rlhf_platform.evaluation import dialogue, dialogue_report, speech
from rlhf_platform.evaluation.dialogue import EVASIVE, DialogueResult
from rlhf_platform.evaluation.measured import write_scores
from rlhf_platform.evaluation.report import EvalResult, evaluate, rate_table
from rlhf_platform.evaluation.speech import ENDED, SpeechResult
from rlhf_platform.recipe.load import LoadedRecipe
from rlhf_platform.recipe.schema import TrackingConfig
from rlhf_platform.tracking.checkpoints import Checkpoints
from rlhf_platform.tracking.progress import Display
from rlhf_platform.tracking.run_dir import RunDir
from rlhf_platform.tracking.wandb_log import WandbLog
from rlhf_platform.train.accounting import accounted
from rlhf_platform.train.beginning import begin
from rlhf_platform.train.cluster import cluster, placed
from rlhf_platform.train.context import RunContext
from rlhf_platform.train.decoding import decode, parts_of
from rlhf_platform.train.drafting import guesses
from rlhf_platform.train.measures import measure_of
from rlhf_platform.train.measuring import heldout_means
from rlhf_platform.train.preparing.prepare import fitted, prepare_data
from rlhf_platform.train.preparing.speech import hearing, speaking
from rlhf_platform.train.team import Rewards, Rollouts


def evaluate_checkpoint(loaded: LoadedRecipe, checkpoint: str) -> Path:
    """Decode the recipe's held-out split with a checkpoint; returns the folder of the report.

    `checkpoint`: as `policy_in` takes it. Raises RunError when it holds no model.
    """
    model, display = policy_in(checkpoint), Display()
    loaded, folder = begin(loaded, f"{loaded.recipe.name}-eval", 0)
    recipe = replace(loaded.recipe, learner=replace(loaded.recipe.learner, workers=0))
    display.line(f"evaluation of {model} in {folder.path}")
    with accounted(folder, display), cluster(recipe):
        folder.status(phase="data")
        prompts = prepare_data(recipe, display).evaluation
        warm_up = list(chain.from_iterable(parts_of(prompts, recipe)))[:1]
        model = str(fitted(recipe, model, display))
        model = str(speaking(recipe, model, []) if recipe.branch == "tts" else hearing(recipe, model))
        if recipe.rollout.speculative == "mtp":
            check_folder(Path(model))
        folder.status(phase="start actors")
        with placed(recipe) as placement:
            bundles = count()
            rollouts = Rollouts(recipe, placement, bundles, model, warm_up)
            rewards = Rewards(loaded, placement, bundles, model)
            rewards.ready()
            rollouts.ready()
            folder.status(phase="evaluate")
            if recipe.branch != "asr":
                wandb = WandbLog(TrackingConfig("off"), "", folder.path, {}, "")
                run = RunContext(loaded, folder, display, wandb, Checkpoints(folder.path))
                found, _ = measure_of(recipe.branch).evaluate(run, "evaluation", rollouts, rewards, prompts, 0)
                _report_scores(loaded, model, found, folder, display)
                return folder.path
            samples = decode(rollouts, prompts, recipe)
            if said := guesses(rollouts, recipe):
                display.line(said)
            result = evaluate(checkpoint, prompts, [s.text for s in samples], recipe.evaluation.normalizer)
            scored = rewards.evaluate(samples)
            write_scores(folder.path, scored)
            terms = heldout_means(rewards.score(samples, loaded.recipe.steps)[0]) | heldout_means(scored)
        _report(loaded, model, result, terms, folder, display)
    return folder.path


def policy_in(checkpoint: str) -> str:
    """The model in a run's folder, in a step's checkpoint, in a Hugging Face folder; or the name of one on a hub."""
    path = Path(checkpoint)
    for inside in (path, path / "checkpoint", path / "policy"):
        if (inside / "config.json").is_file():
            return str(inside.resolve())
    if path.exists() or checkpoint.startswith((".", "/", "~")):
        raise RunError(
            f"--checkpoint is {checkpoint!r}: no model in it; give a finished run, a folder checkpoints/step-..., or a "
            "Hugging Face folder"
        )
    return checkpoint


def _report_scores(
    loaded: LoadedRecipe, model: str, result: SpeechResult | DialogueResult, folder: RunDir, display: Display
) -> None:
    """The means of what speech or dialogue was measured by."""
    config = loaded.recipe.evaluation
    how = config.confidence, config.bootstrap_samples
    if isinstance(result, SpeechResult):
        display.show(speech.table({"mean": result}, "Held-out speech", *how))
        found = {name: speech.mean_interval(result, name, *how) for name in [*result.names, ENDED]}
        clips = len(result.said)
    else:
        display.show(dialogue_report.table({"mean": result}, "Held-out dialogue", *how))
        found = {name: dialogue.mean_interval(result, name, *how) for name in [*result.names, ENDED, EVASIVE]}
        clips = len(result.replies)
    results = {
        "checkpoint": model,
        "clips": clips,
        "confidence": config.confidence,
        "scores": {name: [interval.point, interval.low, interval.high] for name, interval in found.items()},
    }
    folder.write("results.json", json.dumps(results, indent=1))
    display.line(f"done: {folder.path}")


def _report(
    loaded: LoadedRecipe, model: str, result: EvalResult, terms: dict[str, float], folder: RunDir, display: Display
) -> None:
    config = loaded.recipe.evaluation
    rows = rate_table(result, resamples=config.bootstrap_samples, confidence=config.confidence)
    display.show(rows.table)
    for term, value in terms.items():
        display.line(f"{term.removeprefix('heldout/')}: {value:.4g} on average")
    folder.write("evaluation.json", result.to_json())
    wer = rows.overall
    results = {
        "checkpoint": model,
        "wer": wer.point,
        "wer_interval": [wer.low, wer.high],
        "clips": len(result.utterances),
    }
    folder.write("results.json", json.dumps(results | {"confidence": config.confidence, "rewards": terms}, indent=1))
    display.line(f"done: {folder.path}")
