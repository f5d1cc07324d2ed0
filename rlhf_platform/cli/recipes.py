"""`rlhf validate`: what is known of a recipe without running it."""

from typing import Annotated

import typer

from rlhf_platform.cli.app import Overrides, RecipePath, app, plain_errors


@app.command()
def validate(
    recipe: RecipePath,
    overrides: Overrides = None,
    show: Annotated[bool, typer.Option("--show", help="Print the whole recipe, defaults included, as YAML.")] = False,
) -> None:
    """Check a recipe in full without running it; a second or two, nothing is loaded.

    Example: rlhf validate recipes/asr/quickstart.yaml algorithm.group_size=16
    """
    with plain_errors():
        from rlhf_platform.cli.checks import check_all
        from rlhf_platform.recipe.load import load_recipe
        from rlhf_platform.recipe.validate import describe

        loaded = load_recipe(recipe, overrides or [])
        check_all(loaded)
        typer.echo(loaded.yaml.rstrip() if show else f"{recipe}: valid; {describe(loaded)}")
