"""The reward that asks a judge which reply is better: the policy's or the reference."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rewards.judge.dialogue import exchange_of, reply_of
from rewards.judge.judging import PairJudge
from rewards.judge.settings import JudgeSettings
from rewards.judge.types import LOWEST, JudgeFailure, Verdict
from rewards.judge.verdict import PHI, agreement, check_phi, worth
from rewards.types import RewardInput
from rlhf_platform.errors import RecipeError
from rlhf_platform.types import Failed

ABSTAIN = ("keep", "tie", "fail")
REFERENCE = "reference"


@dataclass(frozen=True, kw_only=True)
class Preference(JudgeSettings):
    """phi of a pairwise verdict on the reply against the row's reference reply, by a generative judge.

    Parts: `preference`, in phi's range; `level` in [-2, 2]; `agreement`, share of votes with the commonest sign;
    `abstained`, `cached`, 0 or 1; `verdicts`, asked for; `tokens`, paid for. An empty reply is the lowest level, one in
    the reference's own words is level 0; nobody is asked. Fails as the judge does, and where a row has no reference.
    """

    against: str = REFERENCE
    """What the reply is compared with: `reference`, or the key of another reply in the row's metadata."""
    phi: Mapping[Any, float] = field(default_factory=lambda: PHI)
    """What each level is worth, linear between those given."""
    abstain: str = "keep"
    """Where the judge abstains: `keep` the mean over both orders, count as a `tie`, or `fail` the sample."""

    _judge: PairJudge = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.abstain not in ABSTAIN:
            raise RecipeError(f"abstain is {self.abstain!r}; allowed {', '.join(ABSTAIN)}")
        try:
            object.__setattr__(self, "phi", check_phi(self.phi))
        except ValueError as error:
            raise RecipeError(str(error)) from None
        object.__setattr__(self, "_judge", PairJudge(self))

    async def __call__(self, sample: RewardInput) -> dict[str, float] | Failed:
        """The parts, or why there are none."""
        other = sample.reference if self.against == REFERENCE else sample.metadata.get(self.against, "")
        if not other:
            return Failed(
                "raised", f"{sample.prompt_id!r} has no {self.against} to compare with; give one, or use RubricScore"
            )
        reply = reply_of(sample)
        if not reply or reply == other:
            verdict = Verdict(float(0 if reply else LOWEST), (), False)
        else:
            try:
                verdict = await self._judge.compare(exchange_of(sample), reply, other)
            except JudgeFailure as failure:
                return failure.failed()
        if verdict.abstained and self.abstain == "fail":
            return Failed("abstained", f"the judge contradicts itself: votes {list(verdict.votes)}")
        level = 0.0 if verdict.abstained and self.abstain == "tie" else verdict.level
        return {
            "preference": worth(level, self.phi),
            "level": level,
            "agreement": agreement(verdict.votes),
            "abstained": float(verdict.abstained),
            "cached": float(verdict.cached),
            "verdicts": float(len(verdict.votes)),
            "tokens": float(verdict.prompt_tokens + verdict.completion_tokens),
        }

    def state_dict(self) -> dict[str, int]:
        """What is spent."""
        return self._judge.budget.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on with what was left."""
        self._judge.budget.load_state_dict(state)
