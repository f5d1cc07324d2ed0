"""The entropy bonus and its weight: adaptive control of Skywork-OR1 (2505.22312), section 4."""

_STEP = 5e-3
_LARGEST = 1.0


def entropy_bonus_acts(entropy: float, target: float | None) -> bool:
    """Whether the bonus is in the loss: at or below `target`, always without one.

    Both in nats per token.
    """
    return target is None or entropy <= target


def next_entropy_coef(coef: float, entropy: float, target: float) -> float:
    """The weight of the bonus in the next step: raised by 0.005, the report's step, below `target`, lowered above it.

    `entropy`, measured in this step, and `target` in nats per token. The weight stays between 0 and 1, the bounds of
    `algorithm.entropy_coef`: a policy that an entropy bonus does not move must not be buried by it.
    """
    step = _STEP if entropy < target else -_STEP if entropy > target else 0.0
    return min(max(coef + step, 0.0), _LARGEST)
