"""Rewards that did not come out: how many, and when they are too many to go on."""

from collections import Counter, deque
from collections.abc import Mapping, Sequence

from rlhf_platform.errors import RewardError
from rlhf_platform.recipe.rewards import reward_name
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.types import FAILURE_KINDS, Failed, Scored, ScoredSample


def failure_metrics(scored: Sequence[ScoredSample], group_size: int) -> dict[str, float]:
    """How many samples there were, how many have no reward, of which kind, and how many groups that leaves too small.

    A group of which fewer than two samples are scored has nothing to compare, and is left out as a whole.
    """
    kinds = Counter(s.outcome.kind for s in scored if isinstance(s.outcome, Failed))
    groups = [scored[start : start + group_size] for start in range(0, len(scored), group_size)]
    return {
        "samples": float(len(scored)),
        "reward_failed": float(kinds.total()),
        **{f"reward_failed/{kind}": float(kinds[kind]) for kind in FAILURE_KINDS},
        "groups_dropped": float(sum(sum(isinstance(s.outcome, Scored) for s in group) < 2 for group in groups)),
    }


class FailureWindow:
    """How many samples had no reward in the latest steps. `history`: the metrics of the steps before, if any."""

    def __init__(self, recipe: Recipe, history: Sequence[Mapping[str, float]] = ()) -> None:
        self._max_rate = recipe.scoring.max_failure_rate
        self._aborting = {reward_name(reward) for reward in recipe.rewards if reward.on_failure == "abort"}
        counts = [
            (int(metrics["reward_failed"]), int(metrics["samples"])) for metrics in history if "samples" in metrics
        ]
        self._steps = deque(counts, recipe.scoring.failure_window)

    def new_step(self) -> None:
        self._steps.append((0, 0))

    def check(self, scored: Sequence[ScoredSample]) -> None:
        """Take in what a round of the latest step came to.

        Raises RewardError, saying which rewards failed and why, when more samples of the window failed than
        `scoring.max_failure_rate`, or one of a term whose `on_failure` is abort.
        """
        failures = [s.outcome for s in scored if isinstance(s.outcome, Failed)]
        before, samples = self._steps[-1]
        self._steps[-1] = (before + len(failures), samples + len(scored))
        for failure in failures:
            if failure.term in self._aborting:
                said = f"{failure.kind}: {failure.message}"
                raise RewardError(f"rewards: {failure.term} failed ({said}) and its on_failure is abort; mend it")
        failed, of = (sum(each) for each in zip(*self._steps, strict=True))
        if failures and failed > self._max_rate * of:
            raise RewardError(self._too_many(failures, failed, of))

    def _too_many(self, failures: Sequence[Failed], failed: int, of: int) -> str:
        found = Counter((f.term or "their combination", f.kind) for f in failures)
        kinds = ", ".join(f"{number} {term}: {kind}" for (term, kind), number in found.most_common())
        steps = f"in the last {len(self._steps)} steps " if len(self._steps) > 1 else ""
        return (
            f"rewards: {failed} of {of} samples {steps}failed, scoring.max_failure_rate is {self._max_rate:g}; in this "
            f"step {kinds}; the first said: {failures[0].message}"
        )
