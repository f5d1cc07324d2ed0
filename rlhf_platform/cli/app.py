"""What all commands share: the `rlhf` application, its arguments, plain errors and progress bars."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from rlhf_platform.errors import PlatformError

USER_ERROR = 2
INTERRUPTED = 130

app = typer.Typer(
    help="Train speech models with reinforcement learning.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # its tables print local variables, secrets among them
)

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe file, as recipes/asr/quickstart.yaml.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Overrides of the recipe, as learner.workers=8; the last wins."),
]


@contextmanager
def plain_errors() -> Iterator[None]:
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
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
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
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    pass
