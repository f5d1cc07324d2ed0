"""The keys of multi-token prediction. Importing this file imports no torch."""

from dataclasses import dataclass

from rlhf_platform.recipe.field import key

MTP_ADAPTERS = ("qwen3_asr",)
"""Layouts whose decoder the heads fit."""


@dataclass
class MultiTokenConfig:
    """Heads for multi-token prediction (StepAudio 2.5): decoder blocks that guess the tokens after the next.

    Fitted on transcripts in two stages, the encoder frozen: the blocks alone, then adaptor and decoder with them. The
    checkpoint that comes of it has them in its folder `mtp`.
    """

    blocks: int = key(5, at_least=1, at_most=7)
    """Tokens that are guessed, each by a block of its own: with 5 a forward settles up to six tokens. 3, 5 and 7 are
    published."""
    steps: int = key(0, at_least=0)
    """Optimiser steps of the blocks alone; 0 fits none: the checkpoint must bring its own."""
    joint_steps: int = key(0, at_least=0)
    """Optimiser steps of adaptor, decoder and blocks together, at a tenth of the learning rate."""
    batch_size: int = key(32, at_least=1)
    """Transcripts per step, over all ranks."""
    learning_rate: float = key(2e-4, above=0.0, at_most=1.0)
    """Peak for the blocks alone, as published; it falls to 0 by a cosine in each stage. The tiny backbone takes ten
    times as much."""
    warmup_steps: int = key(50, at_least=0)
    """Steps over which the learning rate rises from 0 in each stage, but never more than a quarter of them."""
    decay: float = key(0.9, above=0.0, at_most=1.0)
    """The loss of each block weighs this times that of the one before; all weights sum to 1."""
    cpus: int = key(1, at_least=1)
    """Cores per rank while the heads are fitted, when no rollout worker is up; ranks are `learner.workers`."""
    seed: int = key(0, at_least=0)
    """Order of the transcripts, apart from the run's `seed` so that runs share fitted heads."""
    refit_below: float = key(0.0, at_least=0.0, at_most=1.0)
    """In RL the policy moves away from the heads. When a step's mean accepted length falls below this share of what it
    was after the last fit, they are fitted anew; 0 never. 0.9 is a good start."""
    refit_steps: int = key(30, at_least=1)
    """Optimiser steps of such a fit, on that step's rollouts."""
