"""What the learner is given: samples with their advantages, and what it saw in them before."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rlhf_platform.types import Sample

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Seen:
    """A sample before the step's updates, per completion token; all (T,)."""

    trained: npt.NDArray[np.bool_]
    """Which tokens are learnt (`algorithm.train_tokens`, `algorithm.train_turns`)."""
    logprobs: Floats | None = None
    """By the learner's own policy, in nats."""
    reference: Floats | None = None
    """Log-probs by the reference, where the algorithm has one."""
    penalty: Floats | None = None
    """What each token's reward pays for the KL, where it is paid there."""
    values: Floats | None = None
    """What the critic expects before each token, in units of the reward."""


@dataclass(frozen=True)
class TrainSample:
    """A sample with its advantage, one for the sample or one for each token (T,)."""

    sample: Sample
    advantage: float | Floats
    counts: bool
    """False where the reward failed (law 2)."""
    seen: Seen | None = None
    returns: Floats | None = None
    """(T,): what the critic should have expected."""
