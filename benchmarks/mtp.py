"""Multi-token prediction: how many guesses hold, what that saves, and what RL does to it.

    python benchmarks/mtp.py          recipes/asr/mtp.yaml, decoding, RL with and without refits; half an hour
    python benchmarks/mtp.py --only rl     that part; the other's figures are kept (or `--only decoding`)
    python benchmarks/mtp.py --quick  few steps of each: the same keys, no meaning

`rtf_ratio` is the time of decoding with heads by that without, in turns on the same clips: below 1 the heads gain. The
sizes are backbones with made-up weights, built so that the first guesses hold and the rest do not: what they say means
nothing, what they cost is real.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import torch
from line_chart import line_chart
from mtp_sizes import SIZES, build_size
from results import ROOT, write_results
from rich.console import Console
from rich.table import Table
from whole_runs import run

from policies.load import load_adapter
from policies.mtp.acceptance import Acceptance
from policies.mtp.decode import Decoder
from policies.mtp.heads import FOLDER, load_heads
from rlhf_platform.data.manifest import of_split, read_manifest, to_prompt
from rlhf_platform.types import Prompt
from rollout.engine import RolloutEngine, SamplingSettings

LIMIT = 48
"""Tokens of a completion, as in the recipe."""
TURNS = 5
CONCURRENT = 32
QUICK = ["sft.steps=20", "mtp.steps=8", "mtp.joint_steps=2", "steps=3", "rollout.prompts_per_step=4"]
KEYS = ["tracking.wandb=off", "checkpoint.every=0"]
FAR = ["sft.steps=400", "learner.learning_rate=1.5e-3"]
"""RL that moves the policy far from its heads, and not to its good: from a third of the warm start, at four times the
rate. A single run by hand at the recipe's own rate had no fall to mend in 40 steps."""
REFITS = {"refitted": ["mtp.refit_below=0.95", "mtp.refit_steps=60"], "as they were": ["mtp.refit_below=0"]}
Decode = Callable[[Sequence[Prompt]], list[tuple[int, ...]]]


class Served:
    """A checkpoint in vLLM, drafting with its heads or not."""

    def __init__(self, model: Path, adapter: str, drafts: bool, max_tokens: int = 512) -> None:
        self.heads = model / FOLDER if drafts else None
        self.engine = RolloutEngine(adapter, model, "float32", max_tokens, 64, 0.5, heads=self.heads)
        self.acceptance = Acceptance()
        self.drafting = 0.0
        """Seconds spent on guesses."""
        if drafts:
            self.engine._llm.collective_rpc(self._timed)

    def _timed(self, worker: Any) -> None:
        drafter = worker.model_runner.drafter
        propose = drafter.propose

        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            found = propose(*arguments, **named)
            self.drafting += time.perf_counter() - start
            return found

        drafter.propose = timed

    def decode(self, prompts: Sequence[Prompt]) -> list[tuple[int, ...]]:
        samples = self.engine.generate(prompts, SamplingSettings(1, 0.0, LIMIT, 0))
        if self.heads:
            self.acceptance.add(self.engine.acceptance())
        return [sample.tokens for sample in samples]


def one_by_one(decode: Decode) -> Decode:
    return lambda prompts: [decode([prompt])[0] for prompt in prompts]


def in_batches(decode: Decode) -> Decode:
    return lambda prompts: [
        tokens for i in range(0, len(prompts), CONCURRENT) for tokens in decode(prompts[i : i + CONCURRENT])
    ]


def in_turns(plain: Decode, drafting: Decode, prompts: Sequence[Prompt], turns: int) -> tuple[float, list[float]]:
    """Median and all ratios of seconds, drafting by plain, after one turn that does not count."""
    ratios = []
    for turn in range(turns + 1):
        seconds = []
        for decode in (plain, drafting):
            start = time.perf_counter()
            decode(prompts)
            seconds.append(time.perf_counter() - start)
        if turn:
            ratios.append(seconds[1] / seconds[0])
    return round(median(ratios), 2), [round(min(ratios), 2), round(max(ratios), 2)]


def figures_of(acceptance: Acceptance, texts: int, identical: int, tokens: int) -> dict[str, Any]:
    """`texts`: completions, whose first forward is over the prompt and verifies nothing."""
    return {
        "acceptance": [round(rate, 3) for rate in acceptance.rates],
        "mean_accepted": round(acceptance.mean_accepted, 2),
        "forwards_per_token": round((acceptance.rounds + texts) / tokens, 3),
        "identical": round(identical / texts, 4),
    }


def served_figures(model: Path, prompts: Sequence[Prompt], turns: int) -> dict[str, Any]:
    plain, drafting = (Served(model, "qwen3_asr", drafts) for drafts in (False, True))
    expected, found = in_batches(plain.decode)(prompts), in_batches(drafting.decode)(prompts)
    same = sum(a == b for a, b in zip(expected, found, strict=True))
    figures = figures_of(drafting.acceptance, len(prompts), same, sum(map(len, found)))
    few = prompts[::8]
    figures["rtf_ratio"], figures["rtf_ratio_range"] = in_turns(
        one_by_one(plain.decode), one_by_one(drafting.decode), few, turns
    )
    many = in_turns(in_batches(plain.decode), in_batches(drafting.decode), prompts, turns)
    figures[f"rtf_ratio_at_{CONCURRENT}"], figures[f"rtf_ratio_at_{CONCURRENT}_range"] = many
    figures |= profile(plain, drafting, few)
    for one in (plain, drafting):
        one.engine.close()
    return figures


def profile(plain: Served, drafting: Served, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """Of decoding clip by clip: real-time factors, and where the time of a token goes."""
    found: dict[str, Any] = {}
    audio = sum(prompt.duration for prompt in prompts)
    for name, served in (("plain", plain), ("mtp", drafting)):
        served.acceptance, served.drafting = Acceptance(), 0.0
        start = time.perf_counter()
        tokens = sum(map(len, one_by_one(served.decode)(prompts)))
        seconds = time.perf_counter() - start
        found[f"rtf_{name}"] = round(seconds / audio, 4)
        forwards = served.acceptance.rounds + len(prompts) if served.heads else tokens
        found[f"ms_per_forward_{name}"] = round(1000 * seconds / forwards, 2)
        if served.heads:
            found["share_of_drafting"] = round(served.drafting / seconds, 2)
    return found


def reference_figures(model: Path, prompts: Sequence[Prompt], turns: int) -> dict[str, Any]:
    adapter = load_adapter("qwen3_asr", model)
    backbone = adapter.load_model(torch.float32).eval()
    plain, drafting = (
        Decoder(adapter, backbone, heads) for heads in (None, load_heads(model / FOLDER, backbone).eval())
    )
    expected = [plain.decode(prompt, LIMIT) for prompt in prompts]
    found = [drafting.decode(prompt, LIMIT) for prompt in prompts]
    acceptance = Acceptance()
    for one in found:
        acceptance.add(one.acceptance)
    same = sum(a.tokens == b.tokens for a, b in zip(expected, found, strict=True))
    figures = figures_of(acceptance, len(prompts), same, sum(len(one.tokens) for one in found))

    def decode(decoder: Decoder) -> Decode:
        return lambda some: [decoder.decode(prompt, LIMIT).tokens for prompt in some]

    figures["rtf_ratio"], figures["rtf_ratio_range"] = in_turns(decode(plain), decode(drafting), prompts[::8], turns)
    return figures


def sizes_figures(base: Path, holds: int, prompts: Sequence[Prompt], turns: int, folder: Path) -> dict[str, Any]:
    """By decoder size, heads whose first `holds` guesses hold: times with and without, one clip at a time."""
    found: dict[str, Any] = {}
    for name, size in SIZES.items():
        path = folder / name
        parameters = build_size(base, size, holds, path)
        plain, drafting = (Served(path, "qwen3_asr", drafts) for drafts in (False, True))
        ratio, spread = in_turns(one_by_one(plain.decode), one_by_one(drafting.decode), prompts[:3], turns)
        same = plain.decode(prompts[:3]) == drafting.decode(prompts[:3])
        found[name] = {
            "decoder_parameters": parameters,
            "rtf_ratio": ratio,
            "rtf_ratio_range": spread,
            "mean_accepted": round(drafting.acceptance.mean_accepted, 2),
            "identical": same,
        }
        print(name, found[name], flush=True)
        for one in (plain, drafting):
            one.engine.close()
    return found


def decoding_figures(scratch: Path, quick: bool) -> dict[str, Any]:
    turns = 1 if quick else TURNS
    keys = [*KEYS, *(QUICK if quick else []), "steps=0"]
    model = Path(run("asr/mtp.yaml", "heads", scratch, keys).results["start_checkpoint"])
    prompts = heldout(scratch)[:: 16 if quick else 1]
    served = served_figures(model, prompts, turns)
    holds = round(served["mean_accepted"]) - 1
    return {
        "vllm": served,
        "reference": reference_figures(model, prompts, turns),
        "sizes": sizes_figures(model, holds, prompts, turns, scratch),
    }


def rl_figures(scratch: Path, quick: bool) -> dict[str, Any]:
    """Acceptance step by step, of heads that are fitted anew and of heads that are not."""
    figures: dict[str, Any] = {}
    for name, keys in REFITS.items():
        made = run("asr/mtp.yaml", name.replace(" ", "-"), scratch, [*KEYS, *FAR, *(QUICK if quick else []), *keys])
        steps = [json.loads(line) for line in (made.folder / "metrics.jsonl").open()]
        figures[name] = {
            "refits_at": [step["step"] for step in steps if step["mtp_refit"]],
            "mean_accepted": [round(step["mtp_accepted"], 2) for step in steps],
            "acceptance_at_1": [round(step["mtp_acceptance/1"], 3) for step in steps],
            "reward": [round(step["reward"], 3) for step in steps],
            "entropy": [round(step["entropy"], 3) for step in steps],
        }
    return {"rl": figures}


PARTS = {"decoding": decoding_figures, "rl": rl_figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few steps of each")
    parser.add_argument("--only", choices=PARTS, help="this part; the other's figures are kept")
    parser.add_argument("--scratch", help="a folder for cache and runs; they stay")
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = ROOT / "benchmarks" / "results" / f"mtp{'.quick' if options.quick else ''}.json"
    figures: dict[str, Any] = json.loads(path.read_text())["figures"] if options.only and path.is_file() else {}
    with nullcontext(options.scratch) if options.scratch else tempfile.TemporaryDirectory() as folder:
        for name in [options.only] if options.only else PARTS:
            figures |= PARTS[name](Path(folder), options.quick)
            print("written to", write_results("mtp", figures, options.quick))
    if "rl" in figures:
        lines = {name: found["mean_accepted"] for name, found in figures["rl"].items()}
        title = "Tokens that a round of verification settles, in rollouts at temperature 1"
        path.with_suffix(".svg").write_text(line_chart(lines, title, "RL step", "1 + sum of acceptances"))
    if "vllm" in figures:
        Console(width=120).print(table_of(figures))


def heldout(scratch: Path) -> list[Prompt]:
    (manifest,) = (scratch / "cache" / "data").glob("digits-*/manifest.jsonl")
    return [to_prompt(row) for row in of_split(read_manifest(manifest), "heldout")]


def table_of(figures: dict[str, Any]) -> Table:
    table = Table(title="Decoding with heads beside plain decoding")
    for heading in ("", "acceptance by position", "mean accepted", "forwards a token", "time", "identical"):
        table.add_column(heading)
    for name in ("vllm", "reference"):
        found = figures[name]
        rates = " ".join(f"{rate:.2f}" for rate in found["acceptance"])
        numbers = (found["mean_accepted"], found["forwards_per_token"], found["rtf_ratio"], found["identical"])
        table.add_row(name, rates, *map(str, numbers))
    for name, found in figures["sizes"].items():
        table.add_row(name, "", str(found["mean_accepted"]), "", str(found["rtf_ratio"]), str(found["identical"]))
    return table


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
