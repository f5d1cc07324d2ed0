"""An engine starts beside libraries that load llvmlite, over which vLLM's search for kernels would trip."""

from pathlib import Path

import llvmlite.binding  # noqa: F401  # as numba and librosa do

from rollout.engine import RolloutEngine, SamplingSettings
from tests.speaking import PROMPTS, write_speaking_checkpoint


def test_an_engine_starts_where_llvmlite_is_loaded(tiny_checkpoint: Path, tmp_path: Path) -> None:
    write_speaking_checkpoint(tiny_checkpoint, tmp_path / "c")
    engine = RolloutEngine("qwen3_asr", tmp_path / "c", "float32", max_tokens=256, max_sequences=8, kv_cache_gib=0.1)
    assert len(engine.generate(PROMPTS[:1], SamplingSettings(2, 1.0, 8, 0))) == 2
    engine.close()
