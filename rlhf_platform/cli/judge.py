"""`rlhf judge calibrate`."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlhf_platform.cli.app import Overrides, RecipePath, app, plain_errors, progress_bar
from rlhf_platform.errors import RecipeError

if TYPE_CHECKING:
    from rewards.judge.settings import JudgeSettings
    from rlhf_platform.data.labelled import Labelled
    from rlhf_platform.recipe.judges import JudgeConfig
    from rlhf_platform.recipe.schema import Recipe
    from rlhf_platform.train.judging.calibrating import Demand

FILE = "calibration.json"

judge_app = typer.Typer(help="Language models that judge: whether they are to be trusted.", no_args_is_help=True)
app.add_typer(judge_app, name="judge")


@judge_app.callback()
def group() -> None:
    """With one command a group would be that command."""


@judge_app.command()
def calibrate(
    recipe: RecipePath,
    overrides: Overrides = None,
    named: Annotated[
        list[str] | None, typer.Option("--judge", metavar="NAME", help="Only this one of the recipe's judges.")
    ] = None,
    pairs: Annotated[
        Path | None, typer.Option("--pairs", metavar="FILE", help="Labelled replies, in place of the recipe's.")
    ] = None,
    split: Annotated[str | None, typer.Option("--split", help="Which of them, in place of the recipe's.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Ask about N of them.")] = None,
    ablate: Annotated[bool, typer.Option("--ablate", help="Order swap and votes, each on and off.")] = False,
    attacks: Annotated[bool, typer.Option("--attacks", help="Replies that tell the judge what to say.")] = False,
) -> None:
    """Ask the recipe's judges about replies whose better one is known; exit code 1 below what the recipe demands.

    Example: rlhf judge calibrate recipes/realtime/quickstart.yaml --limit 40 --ablate
    """
    with plain_errors():
        from rlhf_platform.cli.checks import load_checked

        loaded = load_checked(recipe, overrides or []).recipe
        found: dict[str, Any] = {}
        problems: list[str] = []

        from rlhf_platform.train.judging.demands import demand_of, settings_of

        for judge in _chosen(loaded, named):
            demand, labelled = demand_of(loaded, judge), _pairs(loaded, judge, pairs, split, limit)
            with _address(loaded, judge) as url:
                settings = settings_of(loaded, judge, url)
                found[judge.name], below = _measured(demand, settings, labelled, ablate, attacks)
                problems += below
        file = Path(loaded.runs_dir, f"{loaded.name}-judge", FILE)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"judges": found}, indent=1, ensure_ascii=False) + "\n", "utf-8")
        typer.echo(f"\nwritten to {file}")
        for problem in problems:
            typer.secho(problem, fg=typer.colors.RED, err=True)
        if problems:
            raise typer.Exit(1)


def _chosen(recipe: "Recipe", named: list[str] | None) -> "list[JudgeConfig]":
    there = {judge.name: judge for judge in recipe.judges}
    if not there:
        raise RecipeError("judges: the recipe has none; add one (docs/judges.md)")
    for name in named or []:
        if name not in there:
            raise RecipeError(f"--judge is {name!r}: the recipe has {', '.join(there)}")
    return [there[name] for name in named or there]


def _pairs(
    recipe: "Recipe", judge: "JudgeConfig", file: Path | None, split: str | None, limit: int | None
) -> "list[Labelled]":
    from rlhf_platform.data import demo
    from rlhf_platform.train.judging.demands import WITH_PAIRS, demand_of, pairs_of

    wanted = judge.calibration
    wanted = replace(
        wanted, pairs=str(file) if file else wanted.pairs, split=split or wanted.split, limit=limit or wanted.limit
    )
    if wanted.pairs is None and recipe.data.demo in WITH_PAIRS:
        with progress_bar(f"build data set {recipe.data.demo}") as progress:
            demo.build(recipe.data.demo, recipe.cache_dir, progress)
    found = pairs_of(recipe, replace(judge, calibration=wanted))
    if found is None:
        key = f"{demand_of(recipe, judge).key}.calibration.pairs"
        raise RecipeError(f"{key}: there are no labelled replies; set it, or give --pairs (docs/dialogue_data.md)")
    return found


@contextmanager
def _address(recipe: "Recipe", judge: "JudgeConfig") -> Iterator[str]:
    """Where the judge answers, for as long as the block lasts."""
    if judge.url:
        yield judge.url
        return
    from rlhf_platform.train.judging.demands import server_of

    typer.echo(f"start judge {judge.name!r}, {judge.model}", err=True)
    with server_of(recipe, judge) as server:
        yield server.url


def _measured(
    demand: "Demand", settings: "JudgeSettings", pairs: "list[Labelled]", ablate: bool, attacks: bool
) -> tuple[dict[str, Any], list[str]]:
    """What was found, printed and as JSON, and what it does not meet of the demand."""
    from rlhf_platform.cli import judge_tables
    from rlhf_platform.evaluation.calibration import calibration
    from rlhf_platform.train.judging import calibrating

    with progress_bar(f"pairs shown to judge {demand.name}") as progress:
        recording = asyncio.run(calibrating.record(settings, pairs, progress))
    figures = calibration(recording)
    typer.echo(f"judge {demand.name!r}")
    judge_tables.show_calibration(figures)
    found: dict[str, Any] = {"calibration": asdict(figures), "rulings": [asdict(each) for each in recording.rulings]}
    if ablate and recording.rulings:
        with progress_bar("order and votes") as progress:
            settings_tried = asyncio.run(calibrating.ablate(settings, pairs, progress))
        typer.echo("\norder swap and votes")
        judge_tables.show_ablation(settings_tried)
        found["ablation"] = [asdict(each) for each in settings_tried]
    if attacks and recording.rulings:
        with progress_bar("attacks on the judge") as progress:
            gains = asyncio.run(calibrating.attack(settings, pairs, progress))
        typer.echo("\nreplies that talk to the judge")
        judge_tables.show_injection(gains)
        found["injection"] = asdict(gains) | {"worst": gains.worst, "bound": gains.bound}
    return found, demand.problems(figures)
