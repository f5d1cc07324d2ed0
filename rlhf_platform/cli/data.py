"""`rlhf data build`, `check`, `join` and `describe`."""

from pathlib import Path
from typing import Annotated

import typer

from rlhf_platform.cli.app import app, plain_errors, progress_bar
from rlhf_platform.errors import DataError

data_app = typer.Typer(help="Build, check, join and describe data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@data_app.command()
def build(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="The data set: digits, recorded, speech, phrases, dialogue or exchanges."),
    ],
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
    long_split: Annotated[
        str | None,
        typer.Option("--long-split", metavar="SPLIT", help="A split whose clips may be longer (evaluation.long_form)."),
    ] = None,
) -> None:
    """Check every row of a manifest and decode every clip.

    Example: rlhf data check data/digits/manifest.jsonl --window 4
    """
    with plain_errors():
        from rlhf_platform.data.manifest import check_audio, read_manifest

        rows = read_manifest(manifest)
        with progress_bar("clips decoded") as progress:
            check_audio(rows, window, progress, long_split)
        seconds = sum(row.duration for row in rows)
        but = f" but in split {long_split}" if long_split else ""
        typer.echo(f"{manifest}: {len(rows)} clips, {seconds / 3600:.2f} hours, none over {window:g} s{but}")


@data_app.command()
def join(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="A JSONL manifest (docs/data.md).")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder for the recordings and their manifest.")],
    split: Annotated[str, typer.Option("--split", help="The split whose clips are joined.")] = "heldout",
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="SECONDS", min=1.0, help="Longest recording, pauses included.")
    ] = 60.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the order of the clips and the pauses.")] = 0,
) -> None:
    """Join the clips of a split to long recordings, to try long-form evaluation on.

    Example: rlhf data join data/recorded/manifest.jsonl data/long --seconds 60 --seed 0
    """
    with plain_errors():
        from rlhf_platform.data.join import join as join_clips

        try:
            with progress_bar("recordings written") as progress:
                path = join_clips(manifest, out, split, seconds, seed, progress)
        except OSError as error:
            raise DataError(f"OUT is {str(out)!r}: {error.strerror}; name a folder that can be written") from None
        typer.echo(path)


@data_app.command()
def describe(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="A JSONL manifest (docs/data.md).")],
    out: Annotated[
        Path, typer.Option("--out", metavar="NEW", help="The manifest to write; clips stay where they are.")
    ],
) -> None:
    """Measure how each clip is spoken and write instructions for it; rows whose clip says another text are dropped.

    Example: rlhf data describe my/manifest.jsonl --out my/described.jsonl
    """
    with plain_errors():
        from rlhf_platform.data.supervision import describe_manifest

        try:
            with progress_bar("clips heard") as progress:
                described = describe_manifest(manifest, out, progress)
        except OSError as error:
            raise DataError(f"--out is {str(out)!r}: {error.strerror}; name a file that can be written") from None
        typer.echo(f"{out}: {described.report()}")
