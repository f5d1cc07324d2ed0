"""`rlhf data build` and `rlhf data check`."""

from pathlib import Path
from typing import Annotated

import typer

from rlhf_platform.cli.app import app, plain_errors, progress_bar
from rlhf_platform.errors import DataError

data_app = typer.Typer(help="Build and check data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@data_app.command()
def build(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The data set: digits or recorded.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to build it in.")],
) -> None:
    """Make a demo data set: audio files and a manifest.

    Example: rlhf data build digits --out data/digits
    """
    with plain_errors():
        from rlhf_platform.data import demo

        try:
            with progress_bar("clips built") as progress:
                manifest = demo.build_into(name, out, progress)
        except OSError as error:
            message = f"--out is {str(out)!r}: {error.strerror}; name a folder that can be written"
            raise DataError(message) from None
        typer.echo(manifest)


@data_app.command()
def check(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="A JSONL manifest (docs/data.md).")],
    window: Annotated[
        float,
        typer.Option("--window", metavar="SECONDS", min=0.0, help="Longest clip: the recipe's backbone.window."),
    ],
) -> None:
    """Check every row of a manifest and decode every clip.

    Example: rlhf data check data/digits/manifest.jsonl --window 4
    """
    with plain_errors():
        from rlhf_platform.data.manifest import check_audio, read_manifest

        rows = read_manifest(manifest)
        with progress_bar("clips decoded") as progress:
            check_audio(rows, window, progress)
        seconds = sum(row.duration for row in rows)
        typer.echo(f"{manifest}: {len(rows)} clips, {seconds / 3600:.2f} hours, none over {window:g} s")
