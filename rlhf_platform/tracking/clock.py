"""Seconds per phase."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class PhaseClock:
    """Adds up wall time by phase name."""

    def __init__(self) -> None:
        self._spent: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time inside the block towards `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._spent[name] = self._spent.get(name, 0.0) + time.perf_counter() - start

    def seconds(self) -> dict[str, float]:
        """Metrics `seconds/NAME` and their sum `seconds`."""
        return {f"seconds/{name}": spent for name, spent in self._spent.items()} | {
            "seconds": sum(self._spent.values())
        }
