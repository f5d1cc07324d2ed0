"""What judging may cost: tokens and money of one reward process."""

from rewards.judge.types import JudgeFailure

MILLION = 1_000_000


class Budget:
    """Counts tokens, and stops asking when they are spent. A limit of 0 is none.

    `tokens`: prompt and completion together. `cost`: in the currency of the prices, which are per million tokens.
    """

    def __init__(self, tokens: int = 0, cost: float = 0.0, price_in: float = 0.0, price_out: float = 0.0) -> None:
        self._tokens, self._cost = tokens, cost
        self._price_in, self._price_out = price_in, price_out
        self.prompt_tokens = self.completion_tokens = 0

    @property
    def tokens(self) -> int:
        """Spent so far."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def cost(self) -> float:
        """Spent so far."""
        return (self.prompt_tokens * self._price_in + self.completion_tokens * self._price_out) / MILLION

    def check(self) -> None:
        """Raises `JudgeFailure(budget)` once a limit is reached. What is under way then is still counted."""
        if self._tokens and self.tokens >= self._tokens:
            raise JudgeFailure("budget", f"budget_tokens is {self._tokens}: {self.tokens} are spent; raise it")
        if self._cost and self.cost >= self._cost:
            raise JudgeFailure("budget", f"budget_cost is {self._cost:g}: {self.cost:.4g} is spent; raise it")

    def spend(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Count an answer's tokens."""
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens

    def state_dict(self) -> dict[str, int]:
        """What is spent, for a run that goes on."""
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from there."""
        self.prompt_tokens, self.completion_tokens = state["prompt_tokens"], state["completion_tokens"]
