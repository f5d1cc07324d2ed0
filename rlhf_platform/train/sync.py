"""Weights from learner to rollout, and the proof that they are in force (law 4)."""

from collections.abc import Sequence
from dataclasses import dataclass

from rlhf_platform.errors import SyncError
from rlhf_platform.train.team import Learners, Rollouts
from rlhf_platform.types import Prompt, Sample

TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1}
"""Largest log-prob difference in nats between engine and learner that is rounding; above it, weights differ."""


@dataclass(frozen=True)
class SyncProof:
    """What showed that rollout holds the learner's weights. `difference`: the probe's, in nats."""

    version: int
    difference: float


def sync(learners: Learners, rollouts: Rollouts, version: int, probe: Sequence[Prompt], dtype: str) -> SyncProof:
    """Bring the learner's weights to every rollout worker as `version`, and prove it.

    Proof: the checksum (in the worker), the version it echoes, and the log-probs of what it answers to fixed audio
    prompts against the learner's own. The probe is what finds weights that were taken without effect, as a packed
    or tied parameter can be. Raises SyncError; the run must not go on.
    """
    versions = rollouts.load_weights(learners.weights(version))
    if set(versions) != {version}:
        raise SyncError(f"weight sync: version {version} was sent, the rollout workers hold {versions}")
    answers = rollouts.probe(probe, seed=version)
    difference = max(probe_difference(samples, learners.logprobs(samples)) for samples in answers)
    if not difference <= TOLERANCE[dtype]:
        raise SyncError(
            f"weight sync: after version {version} rollout and learner differ by {difference:.2g} nats on the probe "
            f"prompts, rounding explains {TOLERANCE[dtype]:g}: the engine took the weights without using all of them"
        )
    return SyncProof(version, difference)


def probe_difference(samples: Sequence[Sample], learner: Sequence[Sequence[float]]) -> float:
    """Largest |rollout - learner| log-prob over all completion tokens; NaN when either has one.

    In nats, beyond a log-prob of -1 as a share of it: the rounding of an unlikely token grows with the logits it is the
    difference of.
    """
    differences = [
        abs(ours - theirs) / max(1.0, abs(ours))
        for sample, values in zip(samples, learner, strict=True)
        for ours, theirs in zip(sample.logprobs, values, strict=True)
    ]
    if any(d != d for d in differences):
        return float("nan")
    return max(differences, default=0.0)
