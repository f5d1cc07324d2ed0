"""`rlhf merge`: the weights of several branches made into one checkpoint."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rlhf_platform.cli.app import app, plain_errors
from rlhf_platform.cli.gate import FELL
from rlhf_platform.errors import RunError


class Method(StrEnum):
    """What becomes of the weights."""

    LINEAR = "linear"
    TASK = "task"


@app.command()
def merge(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Runs' folders, or Hugging Face folders.")],
    base: Annotated[str, typer.Option("--base", metavar="BASE", help="The checkpoint that they started from.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to make; nothing is overwritten.")],
    weights: Annotated[
        str | None, typer.Option("--weights", metavar="W,W", help="One per model, as 0.7,0.3; default: all the same.")
    ] = None,
    method: Annotated[
        Method, typer.Option("--method", help="The models' mean, or what each learnt added to the base.")
    ] = Method.LINEAR,
    scale: Annotated[float, typer.Option("--scale", help="Of what was learnt, with --method task.")] = 1.0,
    gate: Annotated[
        Path | None, typer.Option("--gate", metavar="GATE", help="Evaluate the result against the base (rlhf gate).")
    ] = None,
) -> None:
    """Merge checkpoints of one backbone: their weighted mean, or task arithmetic.

    Example: rlhf merge --base runs/start --method task runs/asr runs/tts --out merged
    """
    with plain_errors():
        from rlhf_platform.cli.checks import load_checked
        from rlhf_platform.evaluation.gate_entries import check_gate, read_gate

        entries = read_gate(gate) if gate else []
        check_gate(entries, load_checked)
        shares = _weights(weights, len(models))
        if out.exists() or out.is_symlink():
            raise RunError(f"--out is {str(out)!r}: it is there; name a new folder, nothing is overwritten")

        from policies.merge import Merge
        from policies.merge import merge as combine
        from rlhf_platform.train.evaluate import policy_in
        from rlhf_platform.train.links import made_whole

        folders = [Path(policy_in(named)) for named in (base, *models)]
        try:
            with made_whole(out) as draft:
                combine(folders[0], folders[1:], Merge(str(method), shares, scale), draft)
        except OSError as error:
            raise RunError(f"--out is {str(out)!r}: {error.strerror}; name a folder that can be written") from None
        typer.echo(f"{out}: {method} of {len(models)} checkpoints; {out / 'merge.json'} says which")
        if not entries:
            return

        from rlhf_platform.tracking.progress import Display
        from rlhf_platform.train.gate import run_gate

        results = run_gate(entries, base, str(out), Path("runs/gate"), Display(), load_checked)
        if not all(result.passed for result in results):
            raise typer.Exit(FELL)


def _weights(given: str | None, models: int) -> tuple[float, ...]:
    """One per model. Raises RunError for other numbers of them, or what is no number."""
    if given is None:
        return (1 / models,) * models
    try:
        found = tuple(float(text) for text in given.split(","))
    except ValueError:
        raise RunError(f"--weights is {given!r}: expected numbers with commas between them, as 0.7,0.3") from None
    if len(found) != models:
        raise RunError(f"--weights is {given!r}: {len(found)} for {models} checkpoints; give one for each")
    return found
