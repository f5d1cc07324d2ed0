"""What does a rollout cost, what does encoding each clip once save, and what do we add to bare vLLM?

    python benchmarks/rollout.py          16 clips x 8 samples, rounds in turn; some minutes
    python benchmarks/rollout.py --quick  4 clips x 4 samples: the same keys, no meaning

`samples_per_s` is a figure of this machine; the ratios are of rounds that took turns in one process. `reuse_ratio`: our
rollout over the same with every sample encoded for itself. `engine_only_ratio`: our rollout, from audio file to
`Sample`, over vLLM alone with prompts made beforehand.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from results import write_results
from vllm import SamplingParams
from vllm.model_executor.models.whisper import WhisperForConditionalGeneration

from policies.build import build_backbone
from policies.load import load_adapter
from policies.vllm_whisper import EncodeOnceWhisper
from rlhf_platform.data import demo
from rlhf_platform.data.manifest import of_split, read_manifest, to_prompt
from rlhf_platform.recipe.backbone import BackboneConfig
from rlhf_platform.types import Prompt
from rollout.engine import RolloutEngine, SamplingSettings

SEED = 0


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def bare(engine: RolloutEngine, inputs: Sequence[Any], settings: SamplingSettings) -> None:
    """vLLM's own generate with the same parameters, and nothing made of what it returns."""
    adapter = engine._adapter
    params = SamplingParams(
        n=settings.samples,
        temperature=settings.temperature,
        max_tokens=settings.max_new_tokens,
        logprobs=0,
        allowed_token_ids=list(adapter.completion_token_ids),
        stop_token_ids=list(adapter.end_token_ids),
        detokenize=False,
    )
    engine._llm.generate(list(inputs), params, use_tqdm=False)


def without_reuse(engine: RolloutEngine, prompts: Sequence[Prompt], settings: SamplingSettings) -> None:
    """Every sample a request of its own, whose clip vLLM takes for one that no other request has."""
    shared = EncodeOnceWhisper.embed_multimodal
    EncodeOnceWhisper.embed_multimodal = WhisperForConditionalGeneration.embed_multimodal  # type: ignore[assignment]
    make = engine._adapter.vllm_prompt
    copies = [replace(p, id=f"{p.id}/{i}") for p in prompts for i in range(settings.samples)]

    def marked(prompt: Prompt) -> dict[str, Any]:
        made = make(prompt)
        # vLLM tells clips apart by this mark; an encoder-decoder shares none of them anyway.
        return made if "encoder_prompt" in made else made | {"multi_modal_uuids": {"audio": [prompt.id]}}

    engine._adapter.vllm_prompt = marked  # type: ignore[method-assign]
    try:
        engine.generate(copies, replace(settings, samples=1))
    finally:
        EncodeOnceWhisper.embed_multimodal = shared  # type: ignore[method-assign]
        del engine._adapter.vllm_prompt


def measure(
    backbone: BackboneConfig, prompts: Sequence[Prompt], settings: SamplingSettings, rounds: int
) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "built"
        build_backbone(backbone, [p.reference for p in prompts], checkpoint)
        adapter = load_adapter(backbone.adapter, checkpoint)
        if adapter.window() not in (None, backbone.window):
            adapter.cut_window(backbone.window, checkpoint := Path(folder) / "cut")
        engine = RolloutEngine(backbone.adapter, checkpoint, "float32", 320, 128, 2.0)
        inputs = [engine._adapter.vllm_prompt(p) for p in prompts]
        ways: dict[str, Callable[[], object]] = {
            "ours": lambda: engine.generate(prompts, settings),
            "bare": lambda: bare(engine, inputs, settings),
            "alone": lambda: without_reuse(engine, prompts, settings),
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(rounds + 1):
            for name, work in ways.items():
                # As after a weight sync: nothing of the last round is remembered.
                engine.forget()
                found = seconds(work)
                if turn:  # the first round compiles
                    taken[name].append(found)
        engine.close()
    ours, alone, alone_vllm = (statistics.median(taken[name]) for name in ("ours", "alone", "bare"))
    return {
        "samples_per_s": round(len(prompts) * settings.samples / ours, 1),
        "reuse_ratio": round(alone / ours, 2),
        "engine_only_ratio": round(alone_vllm / ours, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer clips and samples")
    quick: bool = parser.parse_args().quick
    clips, samples, rounds = (4, 4, 1) if quick else (16, 8, 5)
    with tempfile.TemporaryDirectory() as folder:
        rows = of_split(read_manifest(demo.build("recorded", folder)), "train")
        short = [to_prompt(row) for row in rows if row.duration < 6]
        prompts = short[:: len(short) // clips][:clips]
        settings = SamplingSettings(samples, 1.0, 32, SEED)
        figures = {
            "whisper_tiny_en": measure(
                BackboneConfig(adapter="whisper", build="whisper_tiny_en", window=15.0), prompts, settings, rounds
            ),
            "tiny": measure(BackboneConfig(window=6.0), prompts, settings, rounds),
        }
    print(json.dumps(figures, indent=1))
    print("written to", write_results("rollout", figures, quick))


if __name__ == "__main__":
    main()
