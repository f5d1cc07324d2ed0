"""`rlhf gate`: whether a checkpoint lost what other branches had learnt."""

from pathlib import Path
from typing import Annotated

import typer

from rlhf_platform.cli.app import app, plain_errors

FELL = 1
"""Exit code when something fell."""


@app.command()
def gate(
    file: Annotated[Path, typer.Argument(metavar="GATE", help="A YAML file with a list of evaluations (gate: ...).")],
    before: Annotated[
        str, typer.Option("--before", metavar="C", help="The checkpoint to compare with; as --checkpoint of rlhf eval.")
    ],
    after: Annotated[str, typer.Option("--after", metavar="C", help="The checkpoint in question.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="The folder of the evaluations and of gate.json.")
    ] = Path("runs/gate"),
) -> None:
    """Evaluate two checkpoints with other branches' recipes: no metric may fall by more than its entry allows.

    Example: rlhf gate gate.yaml --before runs/asr-quickstart --after runs/realtime
    """
    with plain_errors():
        from rlhf_platform.cli.checks import load_checked
        from rlhf_platform.evaluation.gate_entries import check_gate, read_gate

        entries = read_gate(file)
        check_gate(entries, load_checked)  # before the imports that take seconds

        from rlhf_platform.tracking.progress import Display
        from rlhf_platform.train.gate import run_gate

        results = run_gate(entries, before, after, out, Display(), load_checked)
        if not all(result.passed for result in results):
            raise typer.Exit(FELL)
