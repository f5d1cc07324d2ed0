"""What the samples of a step, or of an evaluation, amount to."""

from collections import Counter
from collections.abc import Sequence

from rewards.asr import word_errors
from rlhf_platform.errors import RewardError
from rlhf_platform.evaluation.wer import total
from rlhf_platform.types import Failed, Scored, ScoredSample, StopReason


def check_failures(scored: Sequence[ScoredSample], max_rate: float) -> None:
    """Raise RewardError when more than `max_rate` of the samples have no reward, saying which and why."""
    failures = [s.outcome for s in scored if isinstance(s.outcome, Failed)]
    if len(failures) <= max_rate * len(scored):
        return
    found = Counter((f.term, f.kind) for f in failures)
    kinds = ", ".join(f"{n} {term}: {kind}" for (term, kind), n in found.items())
    raise RewardError(
        f"rewards: {len(failures)} of {len(scored)} samples failed ({kinds}), "
        f"scoring.max_failure_rate is {max_rate:g}; the first said: {failures[0].message}"
    )


def sample_metrics(scored: Sequence[ScoredSample]) -> dict[str, float]:
    """Means over the step's samples: reward and its terms, WER, length, and what was not scored or cut."""
    outcomes = [s.outcome for s in scored if isinstance(s.outcome, Scored)]
    kinds = Counter(s.outcome.kind for s in scored if isinstance(s.outcome, Failed))
    errors = total(word_errors(s.sample.prompt.reference, s.sample.text, s.sample.prompt.language) for s in scored)
    return {
        "reward": _mean([o.value for o in outcomes]),
        **{f"reward/{name}": _mean(values) for name, values in _parts(scored).items()},
        **{f"reward_failed/{kind}": float(n) for kind, n in kinds.items()},
        "reward_failed": float(len(scored) - len(outcomes)),
        "sample_wer": errors.wer,
        "completion_tokens": _mean([len(s.sample.tokens) for s in scored]),
        "cut": _mean([s.sample.stop_reason is StopReason.LENGTH for s in scored]),
    }


def heldout_means(scored: Sequence[ScoredSample]) -> dict[str, float]:
    """Mean of each term of `evaluation.rewards` over the held-out samples that it could score, as `heldout/NAME`."""
    return {f"heldout/{name}": _mean(values) for name, values in _parts(scored).items()}


def _parts(scored: Sequence[ScoredSample]) -> dict[str, list[float]]:
    parts: dict[str, list[float]] = {}
    for sample in scored:
        if isinstance(sample.outcome, Scored):
            for name, value in sample.outcome.parts.items():
                parts.setdefault(name, []).append(value)
    return parts


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
