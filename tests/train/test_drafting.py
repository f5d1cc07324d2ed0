"""What becomes of guesses in RL, and when heads are fitted anew, on actors that only say so."""

from types import SimpleNamespace
from typing import Any

import pytest

from policies.mtp.acceptance import Acceptance
from rlhf_platform.recipe.metrics import METRICS
from rlhf_platform.recipe.mtp import MultiTokenConfig
from rlhf_platform.recipe.schema import Recipe, RolloutConfig
from rlhf_platform.tracking.clock import PhaseClock
from rlhf_platform.train.drafting import Drafting

RECIPE = Recipe(name="a", rollout=RolloutConfig(speculative="mtp"), mtp=MultiTokenConfig(refit_below=0.9))


class Team:
    """Ten rounds a rollout, of which `accepted` had their one guess right."""

    def __init__(self) -> None:
        self.accepted = 8
        self.done: list[str] = []
        self.rollouts = SimpleNamespace(acceptance=self._acceptance, load_heads=self.done.append)
        self.learners = SimpleNamespace(refit=self._refit, heads=lambda version: f"heads of {version}")

    def _acceptance(self) -> Acceptance:
        return Acceptance([10], [self.accepted], 10, 10 + self.accepted)

    def _refit(self, samples: Any) -> dict[str, float]:
        self.done.append(f"refit on {samples}")
        return {"loss": 0.5}


def step(drafting: Drafting, number: int, rollouts: int = 1) -> dict[str, float]:
    for _ in range(rollouts):
        drafting.look()
    return drafting.step([f"samples {number}"], number, PhaseClock())  # type: ignore[list-item]


def test_heads_are_fitted_anew_when_guesses_fail_more_than_the_recipe_allows() -> None:
    team = Team()
    drafting = Drafting(RECIPE, team, ())  # type: ignore[arg-type]
    assert step(drafting, 1) == {"mtp_acceptance/1": 0.8, "mtp_accepted": 1.8, "mtp_refit": 0.0}
    team.accepted = 7
    assert step(drafting, 2)["mtp_refit"] == 0  # 1.7 is more than 0.9 of 1.8
    team.accepted = 6
    found = step(drafting, 3, rollouts=2)
    assert (found["mtp_accepted"], found["mtp_refit"], found["mtp_refit_loss"]) == (1.6, 1.0, 0.5)
    assert team.done == ["refit on ['samples 3']", "heads of 3"]
    # What the new heads reach is what they are held to.
    assert [step(drafting, number)["mtp_refit"] for number in (4, 5)] == [0, 0]
    team.accepted = 4
    assert step(drafting, 6)["mtp_refit"] == 1


def test_a_run_that_goes_on_holds_the_heads_to_what_it_held_them_to_before() -> None:
    team = Team()
    whole = Drafting(RECIPE, team, ())  # type: ignore[arg-type]
    history, decided = [], []
    for number, accepted in enumerate((8, 7, 6, 7, 6, 5, 4), start=1):
        team.accepted = accepted
        resumed = Drafting(RECIPE, team, tuple(history))  # type: ignore[arg-type]
        history.append(step(whole, number))
        decided.append((history[-1]["mtp_refit"], step(resumed, number)["mtp_refit"]))
    assert all(a == b for a, b in decided)
    assert sum(a for a, _ in decided) == 2


def test_nothing_is_asked_where_nothing_drafts() -> None:
    drafting = Drafting(Recipe(name="a"), None, ())  # type: ignore[arg-type]
    assert step(drafting, 1) == {}


@pytest.mark.parametrize("name", ["mtp_acceptance/1", "mtp_accepted", "mtp_refit", "mtp_refit_loss"])
def test_monitors_may_watch_the_guesses(name: str) -> None:
    assert name in METRICS
