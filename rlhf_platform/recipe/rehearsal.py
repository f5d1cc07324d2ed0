"""Supervised data beside RL; as in `schema.py`."""

from dataclasses import dataclass

from rlhf_platform.recipe.field import key


@dataclass
class RehearsalConfig:
    """What the warm start learnt is rehearsed while a watched metric is below what it was, as StepAudio 2.5 does."""

    metric: str = ""
    """A metric of the evaluations on the way (`evaluation.every`), as `heldout_wer` or `heldout/NAME`; "" rehearses
    nothing."""
    higher_is_better: bool = True
    """Whether more of the metric is better."""
    tolerance: float = key(0.02, at_least=0.0)
    """Rehearsal begins when the metric is worse than its best by more, and ends when it is worse by half of that at
    most. In units of the metric."""
    samples: int = key(16, at_least=1)
    """Rows of `data.train_split` that a step rehearses."""
    weight: float = key(0.5, above=0.0, at_most=100.0)
    """Of their mean log-likelihood beside RL's loss."""
