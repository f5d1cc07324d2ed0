"""A fault of vLLM 0.32 that would keep an engine from starting beside some libraries."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

_HIDDEN = "llvmlite"
"""Its binding has an object that answers to every name, `__dict__` too, with a function."""


def spare_llvmlite() -> None:
    """Let vLLM look for its kernels in all modules but llvmlite's, over which it trips (numba, librosa load it)."""
    from vllm.triton_utils import dispatcher

    scan: Callable[[Any], None] = dispatcher._rebind_kernels
    if hasattr(scan, "__wrapped__"):
        return

    @wraps(scan)
    def spared(overrides: Any) -> None:
        names = [name for name in sys.modules if name.partition(".")[0] == _HIDDEN]
        hidden = {name: sys.modules.pop(name) for name in names}
        try:
            scan(overrides)
        finally:
            sys.modules.update(hidden)

    dispatcher._rebind_kernels = spared
