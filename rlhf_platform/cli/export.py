"""`rlhf export`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rlhf_platform.cli.app import app, plain_errors
from rlhf_platform.cli.history import RUNS, RunsDir


class Adapter(StrEnum):
    """What becomes of LoRA."""

    MERGED = "merged"
    KEPT = "kept"


@app.command()
def export(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A finished run's folder, its name below --runs, or a step's folder.")
    ],
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="The folder to make; nothing is overwritten.")],
    adapter: Annotated[
        Adapter, typer.Option("--adapter", help="Weights with LoRA merged into them, or LoRA kept apart (PEFT).")
    ] = Adapter.MERGED,
    parent: RunsDir = RUNS,
) -> None:
    """Copy a run's model to a folder of its own, with a model card.

    Example: rlhf export first --to my-model
    """
    with plain_errors():
        from rlhf_platform.tracking.export import export as copy

        made = copy(run, to, parent, keep_adapter=adapter is Adapter.KEPT)
        typer.echo(f"{made}: model and card; read {made / 'README.md'} before you pass it on")
