"""The `rlhf` command. Heavy imports wait inside the commands: `rlhf validate` answers without torch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from rlhf_platform.errors import DataError, PlatformError

USER_ERROR = 2
INTERRUPTED = 130

app = typer.Typer(
    help="Train speech models with reinforcement learning.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # its tables print local variables, secrets among them
)
data_app = typer.Typer(help="Build and check data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe file, as recipes/asr/quickstart.yaml.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Overrides of the recipe, as learner.workers=8; the last wins."),
]


@contextmanager
def _plain_errors() -> Iterator[None]:
    """A user's mistake is a message and exit code 2, Ctrl-C a line and 130. All else is a bug: traceback."""
    try:
        yield
    except PlatformError as error:
        typer.secho(str(error), fg=typer.colors.RED, err=True)
        raise typer.Exit(USER_ERROR) from None
    except KeyboardInterrupt:
        typer.secho("interrupted", err=True)
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, gone when done, none when that is no terminal; gives `report(done, total)`."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            typer.echo(f"rlhf-platform {version('rlhf-platform')}")
        except PackageNotFoundError:
            typer.echo("rlhf-platform (not installed)")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    pass


@app.command()
def run(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Check a recipe in full, then run it.

    Example: rlhf run recipes/asr/quickstart.yaml steps=10 learner.workers=2
    """
    with _plain_errors():
        from rlhf_platform.cli.checks import check_all
        from rlhf_platform.recipe.load import load_recipe

        loaded = load_recipe(recipe, overrides or [])
        check_all(loaded)

        from rlhf_platform.train.run import run as train

        train(loaded)


@app.command()
def validate(
    recipe: RecipePath,
    overrides: Overrides = None,
    show: Annotated[bool, typer.Option("--show", help="Print the whole recipe, defaults included, as YAML.")] = False,
) -> None:
    """Check a recipe in full without running it; a second or two, nothing is loaded.

    Example: rlhf validate recipes/asr/quickstart.yaml algorithm.group_size=16
    """
    with _plain_errors():
        from rlhf_platform.cli.checks import check_all
        from rlhf_platform.recipe.load import load_recipe
        from rlhf_platform.recipe.validate import describe

        loaded = load_recipe(recipe, overrides or [])
        check_all(loaded)
        typer.echo(loaded.yaml.rstrip() if show else f"{recipe}: valid; {describe(loaded)}")


@data_app.command()
def build(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The data set: digits or recorded.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to build it in.")],
) -> None:
    """Make a demo data set: audio files and a manifest.

    Example: rlhf data build digits --out data/digits
    """
    with _plain_errors():
        from rlhf_platform.data import demo

        try:
            with _progress("clips built") as progress:
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
    with _plain_errors():
        from rlhf_platform.data.manifest import check_audio, read_manifest

        rows = read_manifest(manifest)
        with _progress("clips decoded") as progress:
            check_audio(rows, window, progress)
        seconds = sum(row.duration for row in rows)
        typer.echo(f"{manifest}: {len(rows)} clips, {seconds / 3600:.2f} hours, none over {window:g} s")


if __name__ == "__main__":
    app(prog_name="rlhf")
