"""`rlhf run`, `rlhf resume` and `rlhf eval`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from rlhf_platform.cli.app import Overrides, RecipePath, app, plain_errors


@app.command()
def run(
    recipe: RecipePath,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Set everything up, take one real step with two prompts, and stop.")
    ] = False,
) -> None:
    """Check a recipe in full, then run it.

    Example: rlhf run recipes/asr/quickstart.yaml steps=10 learner.workers=2
    """
    with plain_errors():
        from rlhf_platform.cli.checks import load_checked
        from rlhf_platform.recipe.dry_run import dry_run_overrides
        from rlhf_platform.recipe.pipeline import is_pipeline

        if is_pipeline(recipe):
            _run_pipeline(recipe, overrides or [], dry_run)
            return
        loaded = load_checked(recipe, overrides or [])
        if dry_run:
            loaded = load_checked(recipe, [*(overrides or []), *dry_run_overrides(loaded.recipe)])

        from rlhf_platform.train.run import run as train

        train(loaded)


def _run_pipeline(path: Path, overrides: list[str], dry_run: bool) -> None:
    """Check all stages, then run them."""
    from rlhf_platform.cli.checks import check_pipeline, load_checked
    from rlhf_platform.recipe.dry_run import dry_run_overrides

    pipeline = check_pipeline(path, overrides)

    from rlhf_platform.recipe.load import LoadedRecipe
    from rlhf_platform.recipe.pipeline import PipelineStage
    from rlhf_platform.train.pipeline import run_pipeline

    def load(stage: PipelineStage, filled: Sequence[str]) -> LoadedRecipe:
        loaded = load_checked(stage.recipe, filled)
        return load_checked(stage.recipe, [*filled, *dry_run_overrides(loaded.recipe)]) if dry_run else loaded

    run_pipeline(pipeline, load)


@app.command()
def resume(
    named: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, or its name below --runs.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Keys that may change, as cluster.step_timeout=1200."),
    ] = None,
    runs: Annotated[Path, typer.Option("--runs", metavar="DIR", help="The folder of the runs.")] = Path("runs"),
) -> None:
    """Go on with a run from its last complete checkpoint, as if it had never stopped.

    Example: rlhf resume runs/asr-quickstart
    """
    with plain_errors():
        from rlhf_platform.cli.checks import load_checked
        from rlhf_platform.train.resume import resume as go_on

        go_on(named, runs, lambda recipe: load_checked(recipe, overrides or []))


@app.command("eval")
def evaluate(
    recipe: RecipePath,
    checkpoint: Annotated[
        str,
        typer.Option(
            "--checkpoint", metavar="C", help="A finished run, its checkpoints/step-..., a Hugging Face folder or name."
        ),
    ],
    overrides: Overrides = None,
) -> None:
    """Measure a checkpoint on a recipe's held-out split; nothing is trained.

    Example: rlhf eval recipes/asr/whisper_tiny.yaml --checkpoint runs/asr-whisper-tiny
    """
    with plain_errors():
        from rlhf_platform.cli.checks import load_checked

        loaded = load_checked(recipe, overrides or [])

        from rlhf_platform.train.evaluate import evaluate_checkpoint

        evaluate_checkpoint(loaded, checkpoint)
