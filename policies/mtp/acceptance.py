"""How many of the tokens that heads guess are what the backbone says: counted alike wherever they are verified."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field


@dataclass
class Acceptance:
    """Of rounds, each one forward of the backbone that verifies a draft."""

    tried: list[int] = field(default_factory=list)
    """Rounds in which the text went on to the token that position 1, 2, ... had guessed, or to another in its place."""
    accepted: list[int] = field(default_factory=list)
    """Of those, the ones in which it was the guessed one, and so were all before it."""
    rounds: int = 0
    tokens: int = 0
    """Settled in the rounds, up to the end of the text."""

    def count(self, settled: Sequence[int], drafted: int, ends: Collection[int]) -> None:
        """Add a round: `settled` are the accepted tokens of `drafted` ones and the one that the backbone added.

        What comes after a token of `ends` was never needed and counts for nothing.
        """
        missing = drafted - len(self.tried)
        self.tried += [0] * missing
        self.accepted += [0] * missing
        last = next((i for i, token in enumerate(settled) if token in ends), len(settled) - 1)
        ended = settled[last] in ends
        for position in range(min(drafted, last + 1) if ended else drafted):
            self.tried[position] += 1
            self.accepted[position] += position < len(settled) - 1
        self.rounds += 1
        self.tokens += last + 1

    def add(self, other: "Acceptance") -> None:
        """Count another's rounds too."""
        longest = max(len(self.tried), len(other.tried))
        for ours, theirs in ((self.tried, other.tried), (self.accepted, other.accepted)):
            ours += [0] * (longest - len(ours))
            for position, count in enumerate(theirs):
                ours[position] += count
        self.rounds += other.rounds
        self.tokens += other.tokens

    @property
    def rates(self) -> list[float]:
        """Of each position, the share of the rounds that reached it in which it and all before it were accepted."""
        return [accepted / max(1, tried) for accepted, tried in zip(self.accepted, self.tried, strict=True)]

    @property
    def mean_accepted(self) -> float:
        """Tokens that a round settles, were the text to go on: 1 + the sum of `rates` (StepAudio 2.5's measure)."""
        return 1 + sum(self.rates)
