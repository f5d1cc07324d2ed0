"""`rlhf validate` and `rlhf show`: what is known of a recipe without running it."""

from typing import Annotated

import typer

from rlhf_platform.cli.app import Overrides, RecipePath, app, plain_errors


@app.command()
def validate(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Check a recipe in full without running it; a second or two, nothing is loaded.

    Example: rlhf validate recipes/asr/quickstart.yaml algorithm.group_size=16
    """
    with plain_errors():
        from rlhf_platform.cli.checks import check_pipeline, load_checked
        from rlhf_platform.recipe.pipeline import is_pipeline
        from rlhf_platform.recipe.validate import describe

        if is_pipeline(recipe):
            stages = check_pipeline(recipe, overrides or []).stages
            typer.echo(f"{recipe}: valid; {len(stages)} stages: {', '.join(stage.name for stage in stages)}")
            return
        typer.echo(f"{recipe}: valid; {describe(load_checked(recipe, overrides or []))}")


@app.command()
def show(
    recipe: RecipePath,
    overrides: Overrides = None,
    changed: Annotated[bool, typer.Option("--changed", help="Without the keys that have their default.")] = False,
) -> None:
    """Print the whole recipe as YAML, each value with the file and line, or the override, that it came from.

    Example: rlhf show recipes/asr/quickstart.yaml learner.workers=2
    """
    with plain_errors():
        from rlhf_platform.recipe.load import load_recipe
        from rlhf_platform.recipe.show import render

        typer.echo(render(load_recipe(recipe, overrides or []), changed), nl=False)
