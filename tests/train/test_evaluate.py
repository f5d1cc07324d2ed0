"""The evaluation of a checkpoint, with actors that are none; tests/e2e/test_resume.py has real ones."""

import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from rlhf_platform.data.audio import load_audio
from rlhf_platform.data.manifest import Row, read_manifest, write_manifest
from rlhf_platform.data.prompts import Plan, build_prompts
from rlhf_platform.recipe.load import load_recipe
from rlhf_platform.train import evaluate
from rlhf_platform.types import Prompt, Sample, ScoredSample, StopReason

RATE = 16_000


class Actors:
    """Rollout and reward actors in one: remember the warm-up, answer `hello` to every clip, score nothing."""

    warm_ups: list[list[Prompt]]

    def __init__(self, *arguments: Any) -> None:
        if isinstance(arguments[-1], list):
            Actors.warm_ups.append(arguments[-1])

    def ready(self) -> None:
        pass

    def answer(self, prompts: Sequence[Prompt]) -> list[Sample]:
        return [Sample(prompt, (1, 2), (-1.0, -1.0), "hello", StopReason.EOS, 0) for prompt in prompts]

    def score(self, samples: Sequence[Sample], step: int) -> tuple[list[ScoredSample], None]:
        return [], None

    def evaluate(self, samples: Sequence[Sample]) -> list[ScoredSample]:
        return []


def long_clip(folder: Path) -> Path:
    """A manifest with one clip to learn from and one, held out, of two prompts."""
    rows = [r for r in read_manifest(build_prompts(folder / "recorded", Plan(prompts=5))) if "clean" in r.id]
    first, second = (load_audio(row.audio) for row in rows[:2])
    clips = {"train": first, "heldout": np.concatenate([first, np.zeros(RATE, np.float32), second])}
    path, made = folder / "m.jsonl", []
    for split, samples in clips.items():
        sf.write(folder / f"{split}.wav", samples, RATE, subtype="PCM_16")
        audio, seconds = folder / f"{split}.wav", len(samples) / RATE
        made.append(Row(path, 1, split, audio, f"said in {split}", "en", "anna", seconds, split, "CC0-1.0"))
    write_manifest(path, made)
    return path


def test_a_long_clip_warms_up_as_a_piece_and_counts_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Actors.warm_ups = []
    for name in ("cluster", "placed"):
        monkeypatch.setattr(evaluate, name, lambda _: nullcontext())
    for name in ("Rollouts", "Rewards"):
        monkeypatch.setattr(evaluate, name, Actors)
    monkeypatch.setattr(evaluate, "fitted", lambda recipe, model, display: model)
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy/config.json").write_text("{}")
    (tmp_path / "r.yaml").write_text(
        f"name: a\ndata: {{manifest: {long_clip(tmp_path)}}}\nrewards: [{{fn: rewards.asr:wer_reward}}]\n"
        f"backbone: {{window: 6}}\nevaluation: {{long_form: vad}}\n"
        f"cache_dir: {tmp_path}/cache\nruns_dir: {tmp_path}/runs\n"
    )
    report = evaluate.evaluate_checkpoint(load_recipe(tmp_path / "r.yaml"), str(tmp_path / "policy"))
    assert [[prompt.id for prompt in warm_up] for warm_up in Actors.warm_ups] == [["heldout#1"]]
    (utterance,) = json.loads((report / "evaluation.json").read_text())["utterances"]
    assert (utterance["prompt_id"], utterance["hypothesis"]) == ("heldout", "hello hello")
    assert json.loads((report / "results.json").read_text())["clips"] == 1
