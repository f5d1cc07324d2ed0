"""What the samples of a step, or of an evaluation, amount to."""

from collections.abc import Mapping, Sequence
from math import isfinite

from rlhf_platform.train.replies import reply_metrics
from rlhf_platform.train.spread import deviation, mean, spread_metrics, values_by_name
from rlhf_platform.train.transcripts import transcript_metrics
from rlhf_platform.types import Scored, ScoredSample, StopReason

GAP_STEPS = 5
"""Steps whose mean reward stands for the start, and for now, in `heldout_gap`: prompts differ from step to step."""

_OF_BRANCH = {"asr": transcript_metrics, "realtime": reply_metrics}


def sample_metrics(scored: Sequence[ScoredSample], branch: str) -> dict[str, float]:
    """The step's samples in numbers (docs/run.md): reward and its terms, length, and what is of its branch.

    What a step has no samples for is NaN, as `reward` where every reward failed, or left out where it is optional:
    pace without durations, a correlation without spread.
    """
    outcomes = [s.outcome for s in scored if isinstance(s.outcome, Scored)]
    lengths = [len(s.sample.tokens) for s in scored]
    return {
        "reward": mean([o.value for o in outcomes]),
        **spread_metrics(outcomes),
        **(_OF_BRANCH[branch]([s.sample for s in scored]) if branch in _OF_BRANCH else {}),
        "completion_tokens": mean(lengths),
        "completion_tokens_std": deviation(lengths),
        "cut": mean([s.sample.stop_reason is StopReason.LENGTH for s in scored]),
    }


def heldout_means(scored: Sequence[ScoredSample]) -> dict[str, float]:
    """Mean of each term of `evaluation.rewards` over the held-out samples that it could score, as `heldout/NAME`."""
    parts = [s.outcome.parts for s in scored if isinstance(s.outcome, Scored)]
    return {f"heldout/{name}": mean(values) for name, values in values_by_name(parts).items()}


def heldout_gap(history: Sequence[Mapping[str, float]], wer_before: float) -> float:
    """By how much the reward has grown more than the held-out accuracy: large where what is learnt pays and is no use.

    The growth of the mean reward from the first to the latest GAP_STEPS steps, less the fall of the WER on held-out
    clips since before RL, both shares. `history`: the metrics of the steps so far, the latest with its `heldout_wer`.
    """
    rewards = [m["reward"] for m in history if isfinite(m["reward"])]
    growth = mean(rewards[-GAP_STEPS:]) - mean(rewards[:GAP_STEPS])
    return growth - (wer_before - history[-1]["heldout_wer"])
