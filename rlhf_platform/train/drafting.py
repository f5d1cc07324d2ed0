"""What becomes of the tokens that heads guess in RL, and when the heads are fitted anew."""

from collections.abc import Mapping, Sequence

from policies.mtp.acceptance import Acceptance
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.tracking.clock import PhaseClock
from rlhf_platform.train.team import Rollouts, Team
from rlhf_platform.types import Sample


def guesses(rollouts: Rollouts, recipe: Recipe) -> str:
    """What became of the guesses in the last answers, as a line for a person; "" where nothing drafts."""
    if recipe.rollout.speculative != "mtp":
        return ""
    seen = rollouts.acceptance()
    rates = " ".join(f"{rate:.2f}" for rate in seen.rates)
    return f"guesses accepted, by position: {rates}; {seen.mean_accepted:.2f} tokens a forward while a text goes on"


class Drafting:
    """Follows the acceptance of guesses step by step. Without `rollout.speculative` it does nothing.

    The heads belong to the policy that they were fitted to; RL moves it, and they are accepted less and less.
    """

    def __init__(self, recipe: Recipe, team: Team, history: Sequence[Mapping[str, float]]) -> None:
        """`history`: the metrics of the steps before, when a run goes on."""
        self._team, self._mtp = team, recipe.mtp
        self._on = recipe.rollout.speculative == "mtp"
        self._seen = Acceptance()
        self._fitted_length: float | None = None
        for metrics in history:
            self._note(metrics)

    def look(self) -> None:
        """Take up what became of the guesses of the last rollout."""
        if self._on:
            self._seen.add(self._team.rollouts.acceptance())

    def step(self, samples: Sequence[Sample], version: int, clock: PhaseClock) -> dict[str, float]:
        """Metrics of the step; the heads are fitted anew to its samples when too few guesses were accepted.

        `version`: of the policy's weights now, to whose guesses the heads are fitted.
        """
        if not self._on:
            return {}
        seen, self._seen = self._seen, Acceptance()
        metrics = {f"mtp_acceptance/{h}": rate for h, rate in enumerate(seen.rates, start=1)}
        metrics |= {"mtp_accepted": seen.mean_accepted, "mtp_refit": 0.0}
        fallen = self._fitted_length is not None and seen.mean_accepted < self._mtp.refit_below * self._fitted_length
        if fallen:
            with clock.phase("refit"):
                metrics["mtp_refit_loss"] = self._team.learners.refit(samples)["loss"]
                self._team.rollouts.load_heads(self._team.learners.heads(version))
            metrics["mtp_refit"] = 1.0
        self._note(metrics)
        return metrics

    def _note(self, metrics: Mapping[str, float]) -> None:
        """Remember the first length after a fit; from a step that ended in one, the next step's counts."""
        if "mtp_accepted" not in metrics:
            return
        if metrics["mtp_refit"]:
            self._fitted_length = None
        elif self._fitted_length is None:
            self._fitted_length = metrics["mtp_accepted"]
