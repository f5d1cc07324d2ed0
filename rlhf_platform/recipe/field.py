"""How a key of the schema is declared."""

from dataclasses import field
from typing import Any


def key(default: Any, **bounds: Any) -> Any:
    """A field with bounds: `at_least`, `at_most` (inclusive), `above` (exclusive), `choices`."""
    return field(default=default, metadata=bounds)
