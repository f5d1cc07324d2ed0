"""`rlhf init`: a recipe and a reward function to start from."""

import re
from importlib.resources import files
from pathlib import Path
from shlex import quote
from string import Template
from typing import Annotated

import typer

from rlhf_platform.cli.app import app, plain_errors
from rlhf_platform.errors import RecipeError

REWARDS = "my_rewards.py"


@app.command()
def init(
    branch: Annotated[str, typer.Option("--branch", help="What the model is to learn: asr.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="The folder to write to, made if need be.")
    ] = Path(),
    name: Annotated[
        str | None,
        typer.Option("--name", help="Name of the recipe, its file and its runs; by default my-BRANCH in recipe.yaml."),
    ] = None,
) -> None:
    """Write a commented recipe and a reward function that run as they are; nothing is overwritten.

    Example: rlhf init --branch asr --out my-asr
    """
    with plain_errors():
        recipe, rewards = write(branch, out, name)
        typer.echo(
            f"wrote {recipe} and {rewards}\n"
            f"check it:  rlhf validate {quote(str(recipe))}\n"
            f"run it:    rlhf run {quote(str(recipe))}    (ten minutes or so on two cores)\n"
            f"look:      rlhf runs, then runs/{name or f'my-{branch}'}/report.txt"
        )


def write(branch: str, out: Path, name: str | None) -> tuple[Path, Path]:
    """The recipe and the reward file, written to `out`. Raises RecipeError, and writes nothing, when it cannot be."""
    templates = files("rlhf_platform.cli") / "templates"
    branches = sorted(entry.name.removesuffix(".yaml") for entry in templates.iterdir() if entry.name.endswith(".yaml"))
    if branch not in branches:
        raise RecipeError(f"--branch is {branch!r}: allowed {', '.join(branches)}")
    if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise RecipeError(f"--name is {name!r}: it names files and folders; allowed letters, digits, then . _ - too")
    texts = {
        out / (f"{name}.yaml" if name else "recipe.yaml"): Template(
            (templates / f"{branch}.yaml").read_text("utf-8")
        ).substitute(name=name or f"my-{branch}"),
        out / REWARDS: (templates / REWARDS).read_text("utf-8"),
    }
    if taken := [str(path) for path in texts if path.exists()]:
        raise RecipeError(f"{' and '.join(taken)}: there already, and nothing is overwritten; give another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise RecipeError(f"--out is {str(out)!r}: {error.strerror}; name a folder that can be written") from None
    recipe, rewards = texts
    return recipe, rewards
