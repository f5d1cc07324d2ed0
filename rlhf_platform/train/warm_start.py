"""A run without a step of RL: its warm start, measured and kept."""

import shutil
from pathlib import Path

from policies.speaking import FILE as SPEECH
from rlhf_platform.train.cluster import placed
from rlhf_platform.train.context import PROBE_CLIPS, RunContext, prove_checkpoint
from rlhf_platform.train.links import link
from rlhf_platform.train.measures import BEFORE, measure_of
from rlhf_platform.train.offline import start_sampling
from rlhf_platform.train.preparing.prepare import Data
from rlhf_platform.train.stages import JudgedTrainer


def keep_warm_start(run: RunContext, data: Data, model: Path, served: Path) -> None:
    """Evaluate the checkpoint `model`, prove it in vLLM and Transformers, and keep it as that of the run.

    `served`: the same in the form of the recipe's branch, without what only another branch speaks with.
    """
    recipe, folder = run.recipe, run.folder
    folder.status(phase="start actors")
    with placed(recipe) as placement:
        rollouts, rewards = start_sampling(run, placement, served, data.rl, recipe.learner.workers)
        folder.status(phase="evaluate")
        measure = measure_of(recipe.branch)
        found, _ = measure.evaluate(run, BEFORE, rollouts, rewards, data.evaluation, 0)
        folder.status(phase="checkpoint")
        shutil.copytree(served, folder.checkpoint, copy_function=link)
        trainer = JudgedTrainer(recipe, placement, run.display)
        difference = prove_checkpoint(run, rollouts, trainer.checkpoint_difference, data.rl[:PROBE_CLIPS])
    if served != model:
        link(str(model / SPEECH), str(folder.checkpoint / SPEECH))
    measure.report(run, str(model), data.evaluation, found, found, difference)
