"""`rlhf run`."""

from rlhf_platform.cli.app import Overrides, RecipePath, app, plain_errors


@app.command()
def run(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Check a recipe in full, then run it.

    Example: rlhf run recipes/asr/quickstart.yaml steps=10 learner.workers=2
    """
    with plain_errors():
        from rlhf_platform.cli.checks import load_checked

        loaded = load_checked(recipe, overrides or [])

        from rlhf_platform.train.run import run as train

        train(loaded)
