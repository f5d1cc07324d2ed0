"""The random generators of this process, as plain JSON values: Python's, NumPy's and, where it is loaded, torch's."""

import random
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np


def capture() -> dict[str, Any]:
    """Where the generators stand."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    state: dict[str, Any] = {
        "python": [version, list(words), gauss],
        "numpy": [name, np.asarray(keys).tolist(), position, has_gauss, cached],
    }
    torch = sys.modules.get("torch")
    if torch:
        state["torch"] = bytes(torch.get_rng_state().tolist()).hex()
    return state


def restore(state: Mapping[str, Any]) -> None:
    """Put the generators where `capture` found them."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    if "torch" in state:
        import torch

        torch.set_rng_state(torch.tensor(list(bytes.fromhex(state["torch"])), dtype=torch.uint8))
