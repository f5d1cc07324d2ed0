from pathlib import Path

import pytest

from policies.qwen3_asr import Qwen3ASRAdapter


@pytest.fixture(scope="session")
def adapter(tiny_checkpoint: Path) -> Qwen3ASRAdapter:
    return Qwen3ASRAdapter(tiny_checkpoint)
