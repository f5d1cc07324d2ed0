"""Long recordings: the word error rate of clips one by one, and of recordings joined of them, cut and stitched again.

    python benchmarks/long_form.py            with the policy of a run of recipes/asr/mtp.yaml; about twelve minutes
    python benchmarks/long_form.py --run RUN  with that of a run that there is already
    python benchmarks/long_form.py --quick    a shrunken policy: the same keys, no meaning

The recordings are a minute long, of clips of one voice with pauses of 0.3 to 1.5 s.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from results import ROOT, write_results
from whole_runs import run

from rlhf_platform.data.join import join
from rlhf_platform.recipe.load import load_recipe

RECIPE = "asr/mtp.yaml"
QUICK = ["sft.steps=20", "mtp.steps=8", "mtp.joint_steps=2"]
SECONDS = 60.0
PLAIN = ["rollout.speculative=none", "mtp.refit_below=0"]
LONG = ["data.demo=null", "evaluation.long_form=vad"]


def evaluated(name: str, policy: Path, scratch: Path, keys: Sequence[str]) -> dict[str, Any]:
    """What `rlhf eval` of a policy says of the held-out split."""
    places = [f"name={name}", f"cache_dir={scratch / 'cache'}", f"runs_dir={scratch / 'runs'}", "tracking.wandb=off"]
    report = scratch / "runs" / f"{name}-eval"
    shutil.rmtree(report, ignore_errors=True)  # of an earlier time, beside which this one would get a number
    command = [sys.executable, "-m", "rlhf_platform.cli.main", "eval", str(ROOT / "recipes" / RECIPE)]
    subprocess.run([*command, "--checkpoint", str(policy), *places, *keys], cwd=ROOT, check=True)
    found = json.loads((report / "results.json").read_text())
    return {
        "wer": round(found["wer"], 4),
        "wer_interval": [round(end, 4) for end in found["wer_interval"]],
        "recordings": found["clips"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a shrunken policy")
    parser.add_argument("--run", help="the folder of a finished run of recipes/asr/mtp.yaml")
    parser.add_argument("--scratch", help="a folder for cache and runs; they stay")
    options = parser.parse_args()
    quick = QUICK if options.quick else []
    with nullcontext(options.scratch) if options.scratch else tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        policy = Path(options.run) if options.run else run(RECIPE, "policy", scratch, [*quick, "steps=0"]).folder
        figures = {"clip by clip": evaluated("clips", policy, scratch, [])}
        (manifest,) = (scratch / "cache" / "data").glob("digits-*/manifest.jsonl")
        long = [*LONG, f"data.manifest={join(manifest, scratch / 'joined', seconds=SECONDS)}"]
        figures["joined"] = evaluated("joined", policy, scratch, long)
        figures["joined, plain decoding"] = evaluated("plain", policy, scratch, [*long, *PLAIN])
    for name, found in figures.items():
        low, high = found["wer_interval"]
        print(f"{name}: {found['recordings']} recordings, WER {found['wer']:.2%} [{low:.2%}, {high:.2%}]")
    window = load_recipe(ROOT / "recipes" / RECIPE).recipe.backbone.window
    print("written to", write_results("long_form", figures | {"seconds": SECONDS, "window": window}, options.quick))


if __name__ == "__main__":
    main()
