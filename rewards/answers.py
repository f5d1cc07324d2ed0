"""From what a reward function returned to a number or a typed failure (law 2: never a zero)."""

import math
import traceback
from collections.abc import Mapping
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np

from rlhf_platform.types import Failed

Answer = float | dict[str, float] | Failed
"""One term's word on one sample: a finite number, finite numbers by name, or why there is none."""

_MESSAGE_LENGTH = 300


def read_answer(returned: Any, term: str) -> Answer:
    """The answer for one sample.

    Taken are a finite real number (numpy scalars too, booleans not), a non-empty dict of such numbers by name, and a
    `Failed` of the function's own. Everything else is `Failed`: a sequence is `wrong_shape`, the rest `not_a_number`.
    """
    if type(returned) is float and math.isfinite(returned):  # as nearly always; the rest takes ten times as long
        return returned
    if isinstance(returned, Failed):
        return replace(returned, term=term)
    if isinstance(returned, Mapping):
        return _read_parts(returned, term)
    if isinstance(returned, list | tuple | np.ndarray):
        hint = "a function that takes the whole batch names its parameter `samples`"
        return Failed("wrong_shape", f"returned a {type(returned).__name__} for one sample: {hint}", term)
    number = _finite(returned)
    if number is None:
        message = f"returned {_show(returned)}: a finite number or a dict of them is needed"
        return Failed("not_a_number", message, term)
    return number


def read_batch(returned: Any, samples: int, term: str) -> list[Answer]:
    """One answer per sample from what a batched function returned: a list, a tuple or an array (samples,).

    Another length or type fails the whole batch as `wrong_shape`; each item is read by `read_answer`.
    """
    if isinstance(returned, list | tuple) or (isinstance(returned, np.ndarray) and returned.ndim > 0):
        if len(returned) == samples:
            return [read_answer(item, term) for item in returned]
        message = f"returned {len(returned)} results for {samples} samples"
    else:
        message = f"returned {_show(returned)} for {samples} samples: a list with one result each is needed"
    return [Failed("wrong_shape", message, term)] * samples


def read_error(error: BaseException, term: str) -> Failed:
    """The failure of a function that raised, with the place in one line."""
    # format_exception_only survives an exception whose own __str__ raises.
    what = " ".join("".join(traceback.format_exception_only(error)).split())
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return Failed("raised", what[:_MESSAGE_LENGTH] + where, term)


def _read_parts(returned: Mapping[Any, Any], term: str) -> Answer:
    if not returned:
        return Failed("not_a_number", "returned an empty dict: at least one named number is needed", term)
    parts: dict[str, float] = {}
    for name, value in returned.items():
        number = _finite(value)
        if not isinstance(name, str) or number is None:
            message = f"returned {_show(value)} under {_show(name)}: names are str and values finite numbers"
            return Failed("not_a_number", message, term)
        parts[name] = number
    return parts


def _finite(value: Any) -> float | None:
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:  # an int beyond the range of a float
        return None
    return number if math.isfinite(number) else None


def _show(value: Any) -> str:
    """Kind and value, short: plain values as written, others (a tensor may be large) by type alone."""
    if value is None or isinstance(value, bool):
        return repr(value)
    kind = type(value).__name__
    if isinstance(value, str):
        return f"{kind} {value[:40]!r}"
    return f"{kind} {value!r}" if isinstance(value, float) else f"a value of type {kind}"
