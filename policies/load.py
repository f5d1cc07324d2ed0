"""From the name in a recipe to an adapter."""

from pathlib import Path

from policies.adapter import PolicyAdapter
from policies.qwen3_asr import Qwen3ASRAdapter


def load_adapter(layout: str, path: Path | str) -> PolicyAdapter:
    """The adapter named by `backbone.adapter`, for the checkpoint at `path`."""
    return {"qwen3_asr": Qwen3ASRAdapter}[layout](path)
