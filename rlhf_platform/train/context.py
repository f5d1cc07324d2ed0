"""What accompanies a run, the proof of its checkpoint, and its monitors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf_platform.errors import MonitorError, SyncError
from rlhf_platform.recipe.load import LoadedRecipe
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.tracking.checkpoints import Checkpoints
from rlhf_platform.tracking.progress import Display
from rlhf_platform.tracking.run_dir import RunDir
from rlhf_platform.tracking.wandb_log import WandbLog
from rlhf_platform.train.monitors import check_monitors
from rlhf_platform.train.sync import TOLERANCE
from rlhf_platform.train.team import Rollouts
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


def prove_checkpoint(run: RunContext, rollouts: Rollouts, difference_of: Difference, probe: Sequence[Prompt]) -> float:
    """Serve the run's checkpoint from disk in vLLM, load it anew in Transformers, compare their log-probs."""
    path = run.folder.checkpoint
    rollouts.restart(path, probe)
    answers = rollouts.probe(probe, seed=run.recipe.steps)
    difference = max(difference_of(path, samples) for samples in answers)
    if not difference <= TOLERANCE[run.recipe.backbone.dtype]:
        raise SyncError(
            f"checkpoint {path}: vLLM and Transformers differ by {difference:.2g} nats on the same clips: do not use it"
        )
    run.display.line(f"checkpoint {path}: loaded in Transformers and served by vLLM, log-probs within {difference:.1e}")
    return difference


def watched(run: RunContext, history: Sequence[Mapping[str, float]]) -> MonitorError | None:
    """Say what the monitors warn of; the error of one that is to stop the run, which is raised after a checkpoint."""
    try:
        for line in check_monitors(run.recipe.monitors, history):
            run.display.line(line)
    except MonitorError as error:
        return error
    return None
