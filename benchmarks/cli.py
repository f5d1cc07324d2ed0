"""How long does the command line keep a person waiting? Whole processes, taken in turn.

    python benchmarks/cli.py          fifteen rounds; about a minute
    python benchmarks/cli.py --quick  three rounds: the same keys, wider intervals

Seconds are medians. `validate_over_python` is the median over rounds of one round's `rlhf validate` over the same
round's `python -c pass`, so that it says more than seconds on a busy machine; `*_range` are the least and the largest.
"""

import argparse
import subprocess
import sys
import time
from statistics import median

from results import ROOT, write_results

RECIPE = "recipes/asr/quickstart.yaml"
RLHF = [sys.executable, "-m", "rlhf_platform.cli.main"]
COMMANDS = {
    "python": [sys.executable, "-c", "pass"],
    "help": [*RLHF, "--help"],
    "validate": [*RLHF, "validate", RECIPE],
    "refuse": [*RLHF, "validate", RECIPE, "learner.lr=1", "rollout.top_p=0.5"],
}
IMPORTS = f"""
import sys
from typer.testing import CliRunner
from rlhf_platform.cli.main import app
assert CliRunner().invoke(app, ["validate", "{RECIPE}"]).exit_code == 0
print([name for name in ("torch", "ray", "vllm") if name in sys.modules])
"""


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three rounds")
    quick: bool = parser.parse_args().quick
    for command in COMMANDS.values():
        seconds(command)  # the first reads files from disk and writes byte code
    rounds = [{name: seconds(command) for name, command in COMMANDS.items()} for _ in range(3 if quick else 15)]
    figures: dict[str, object] = {}
    for name in COMMANDS:
        taken = [times[name] for times in rounds]
        figures |= {
            f"{name}_s": round(median(taken), 3),
            f"{name}_s_range": [round(min(taken), 3), round(max(taken), 3)],
        }
    ratios = [times["validate"] / times["python"] for times in rounds]
    loaded = subprocess.run(
        [sys.executable, "-c", IMPORTS], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    figures |= {"validate_over_python": round(median(ratios), 1), "rounds": len(rounds)}
    figures |= {"torch_imported": "torch" in loaded, "ray_imported": "ray" in loaded, "vllm_imported": "vllm" in loaded}
    for name, figure in figures.items():
        print(f"{name:24} {figure}")
    print("written to", write_results("cli", figures, quick))


if __name__ == "__main__":
    main()
