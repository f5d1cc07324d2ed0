"""Naturalness by DistillMOS (2502.05356; MIT), a small model that predicts the mean opinion of listeners."""

from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from typing import Any

from rewards.scorers.packages import require
from rewards.scorers.sound import check_sound
from rlhf_platform.types import Waveform


def naturalness(waves: Sequence[Waveform]) -> list[float]:
    """Predicted mean opinion score of each clip, 1 (bad) to 5 (excellent). How loud a clip is makes no difference.

    Raises `ValueError` for silence and for less than 0.1 s: the model has no opinion on them, and gives a number all
    the same. Raises `RecipeError` when distillmos is not installed.
    """
    for wave in waves:
        check_sound(wave)
    import torch

    model = _model()
    # One by one: each clip takes a whole window of 7.68 s, and several at a time take longer on one thread.
    with torch.inference_mode():
        return [float(model(torch.from_numpy(wave)[None])) for wave in waves]


@cache
def _model() -> Any:
    require("distillmos")
    require("xls_r_sqa")
    import distillmos

    with redirect_stdout(StringIO()):  # it prints where its weights are
        return distillmos.ConvTransformerSQAModel().eval()
