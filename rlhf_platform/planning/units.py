"""Amounts of memory, as people write them and as they are shown."""

import re

from rlhf_platform.errors import RecipeError

GIB = 2**30
_UNITS = {"": GIB, "GIB": GIB, "GB": 10**9, "MIB": 2**20, "MB": 10**6, "TIB": 2**40, "TB": 10**12}


def parse_size(text: str, option: str) -> int:
    """Bytes of `80GB` (10^9), `80GiB` (2^30) or `80`, which are GiB as in the recipe. `option`: who asks.

    Raises RecipeError for anything else, and for nothing.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = _UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None or float(found[1]) <= 0:
        raise RecipeError(
            f"{option} is {text!r}: expected a size above 0, as 80GB (10^9 bytes), 80GiB (2^30) or 80 (GiB)"
        )
    return int(float(found[1]) * unit)


def gib(size: float) -> str:
    """Bytes as GiB: two digits that mean something, tenths from 10 on."""
    amount = size / GIB
    if 0 < amount < 0.0005:
        return "<0.001"
    return f"{amount:.2g}" if amount < 9.95 else f"{amount:.1f}"


def count(amount: float) -> str:
    """A large number in thousands, millions or more: `37.5 M`."""
    for size, name in ((1e15, " P"), (1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if amount >= size:
            return f"{amount / size:.3g}{name}"
    return f"{amount:.3g}"
