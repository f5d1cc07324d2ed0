"""Run folders as `rlhf run` leaves them, small and written by hand, for tests of what reads them."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rlhf_platform.data.manifest import Row, write_manifest
from rlhf_platform.evaluation.report import EvalResult, compare, evaluate, lines
from rlhf_platform.types import Prompt

REFERENCES = ("press one", "press two now", "please hold", "enter the pin number")
BEFORE = ("press 1", "press two now", "please", "enter a pen number")
AFTER = ("press one", "press two now", "please hold", "enter the pen number")

RECIPE: dict[str, Any] = {
    "name": "first",
    "branch": "asr",
    "seed": 0,
    "steps": 8,
    "cache_dir": ".cache",
    "backbone": {"adapter": "qwen3_asr", "path": None, "build": "tiny", "window": 4.0},
    "data": {
        "manifest": None,
        "demo": "recorded",
        "train_split": "train",
        "rl_split": "train",
        "eval_split": "heldout",
    },
    "sft": {"steps": 0},
    "align": {"steps": 0},
    "algorithm": {"type": "grpo", "group_size": 8, "kl_coef": 0.0},
    "rewards": [{"fn": "rewards.asr:wer_reward", "name": "", "weight": 1.0, "kwargs": {}}],
    "evaluation": {"max_clips": None},
    "learner": {"learning_rate": 2e-5, "freeze_encoder": True, "lora": {"rank": 0}},
}


def evaluation(
    hypotheses: Sequence[str], label: str = "after RL", references: Sequence[str] = REFERENCES
) -> EvalResult:
    prompts = [
        Prompt(f"clip-{i}", f"clip-{i}.wav", text, "en", metadata={"group": "clean" if i < 2 else "telephone"})
        for i, text in enumerate(references)
    ]
    return evaluate(label, prompts, hypotheses)


def steps(rewards: Sequence[float]) -> list[dict[str, float]]:
    """Lines of metrics.jsonl, one per reward."""
    return [
        {"step": i, "time": 1e9 + i, "reward": reward, "kl": 0.01 * i, "entropy": 0.5, "seconds": 2.0}
        for i, reward in enumerate(rewards, start=1)
    ]


def write_run(
    path: Path,
    *,
    status: Mapping[str, Any] | None = None,
    recipe: Mapping[str, Any] | None = None,
    after: EvalResult | None = None,
    metrics: Sequence[Mapping[str, float]] | None = None,
    start: str = "",
) -> Path:
    """A finished run; sections of `recipe` are laid over those of RECIPE."""
    path.mkdir(parents=True)
    full = {**RECIPE, "name": path.name}
    for key, value in (recipe or {}).items():
        full[key] = {**full.get(key, {}), **value} if isinstance(value, Mapping) else value
    (path / "recipe.yaml").write_text(yaml.safe_dump(full, sort_keys=False))
    now = time.time()
    told = {"state": "finished", "phase": "done", "step": 8, "started": now - 700.0, "updated": now - 60.0}
    (path / "status.json").write_text(json.dumps(told | dict(status or {})))
    rows = steps([0.1 * i for i in range(1, 9)]) if metrics is None else metrics
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, last = evaluation(BEFORE, "before RL"), after or evaluation(AFTER)
    (path / "evaluation_before_RL.json").write_text(first.to_json())
    (path / "evaluation_after_RL.json").write_text(last.to_json())
    results = {"start_checkpoint": start, "wer_before": first.total.wer, "wer_after": last.total.wer}
    same_clips = [u.prompt_id for u in first.utterances] == [u.prompt_id for u in last.utterances]
    if same_clips and first.normalizer == last.normalizer:
        table = compare([first], [last], resamples=1000)
        d = table[0].difference
        results |= {"wer_difference": d.point, "wer_difference_interval": [d.low, d.high], "confidence": d.confidence}
        (path / "report.txt").write_text("\n".join(lines(table)) + "\n")
    (path / "results.json").write_text(json.dumps(results))
    return path


def write_data(folder: Path) -> Path:
    """A manifest with three clips of two licences to learn from and one held out; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "clip.wav").touch()
    manifest = folder / "clips.jsonl"
    facts = [("a", "train", "CC0-1.0"), ("b", "train", "CC0-1.0"), ("b", "train", "CC-BY-4.0"), ("c", "heldout", "MIT")]
    rows = [
        Row(manifest, i, f"row-{i}", folder / "clip.wav", f"text {i}", "en", speaker, 900.0, split, licence)
        for i, (speaker, split, licence) in enumerate(facts)
    ]
    write_manifest(manifest, rows)
    return manifest
