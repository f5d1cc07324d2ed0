"""`rlhf arena`: what runs say to the same prompts, compared two by two, and given to people to compare."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlhf_platform.cli.app import app, plain_errors, progress_bar
from rlhf_platform.cli.history import RUNS, RunsDir
from rlhf_platform.cli.rewards import Timeout
from rlhf_platform.errors import DataError, RunError

if TYPE_CHECKING:
    from rlhf_platform.evaluation.arena import Duel, Qualities
    from rlhf_platform.evaluation.utterances import System

Systems = Annotated[
    list[str],
    typer.Argument(metavar="RUN RUN...", help="Runs' folders or names, as RUN:LABEL for another label than --label."),
]


@app.command()
def arena(
    named: Systems,
    judge: Annotated[
        str | None, typer.Option("--judge", metavar="FN", help="A reward function: the higher answer wins.")
    ] = None,
    score: Annotated[
        str | None, typer.Option("--score", metavar="NAME", help="A score of the evaluation: the higher wins.")
    ] = None,
    label: Annotated[str, typer.Option("--label", help="Which speech evaluation of a run.")] = "after_RL",
    tie_margin: Annotated[
        float, typer.Option("--tie-margin", min=0.0, help="Numbers at most so far apart are a tie.")
    ] = 0.0,
    export: Annotated[
        Path | None, typer.Option("--export", metavar="DIR", help="Write blind pairs for people to rate.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the intervals, and of the order of blind pairs.")] = 0,
    timeout: Timeout = 30.0,
    parent: RunsDir = RUNS,
) -> None:
    """Compare how runs speak: win rates with intervals, a ranking, blind pairs for people.

    Example: rlhf arena first second --score utmos --export blind
    """
    with plain_errors():
        from rlhf_platform.evaluation import arena, blind

        if judge and score:
            raise DataError(f"--judge is {judge!r} and --score is {score!r}; give one of them")
        if not (judge or score or export):
            raise DataError("give --judge or --score to compare by, or --export to let people compare")
        systems = _systems(named, label, parent)
        if judge or score:
            qualities = _scored(score, systems) if score else _judged(str(judge), timeout, systems)
            show_duels(arena.duels(systems, qualities, tie_margin, seed))
        if export:
            try:
                pairs = blind.export(systems, export, seed)
            except OSError as error:
                raise DataError(f"--export is {str(export)!r}: {error.strerror}; name another folder") from None
            typer.echo(f"{export}: {pairs} blind pairs; hand out {export / blind.RATERS}, keep key.json")


def show_duels(duels: "list[Duel]") -> None:
    """Print a row for each two systems; of more than two the ranking, too."""
    from rlhf_platform.cli.tables import show, table
    from rlhf_platform.evaluation.arena import ranking

    rows = [
        (
            duel.first,
            duel.second,
            duel.wins,
            duel.ties,
            duel.losses,
            f"{100 * duel.rate.point:.1f}",
            f"[{100 * duel.rate.low:.1f}, {100 * duel.rate.high:.1f}]",
            duel.left_out or "",
        )
        for duel in duels
    ]
    confidence = f"{100 * duels[0].rate.confidence:g} % interval"
    headings = ("A", "B", "A wins", "ties", "B wins", "win rate of A, %", confidence, "left out")
    show(table(headings, rows, right=headings[2:]))
    if len(duels) > 1:
        typer.echo()
        ranks = [(rank.system, f"{rank.points:+.0f}") for rank in ranking(duels)]
        show(table(("system", "points"), ranks, right=("points",)))


def _systems(named: list[str], label: str, parent: Path) -> "Mapping[str, System]":
    from rlhf_platform.evaluation.utterances import find_utterances, read_utterances
    from rlhf_platform.tracking.history import find_run

    if len(set(named)) != len(named) or len(named) < 2:
        raise RunError(f"{' '.join(named)}: two or more different runs, or labels of one (RUN:LABEL), are compared")
    systems = {}
    for name in named:
        run, _, own = name.partition(":")
        systems[name] = read_utterances(find_utterances(find_run(Path(run), parent).path, own or label))
    return systems


def _scored(score: str, systems: "Mapping[str, System]") -> "Mapping[str, Qualities]":
    from rlhf_platform.evaluation.judging import by_score

    return {name: by_score(score, name, said) for name, said in systems.items()}


def _judged(fn: str, timeout: float, systems: "Mapping[str, System]") -> "Mapping[str, Qualities]":
    from rewards.pool import RewardPool
    from rlhf_platform.evaluation.judging import by_judge

    found = {}
    with RewardPool.of(fn, Path.cwd(), timeout=timeout) as pool:
        for name, said in systems.items():
            with progress_bar(f"utterances of {name}") as progress:
                found[name], failed = by_judge(pool, said, progress)
            if failed:
                first = f"{failed[0].kind}: {failed[0].message}"
                typer.secho(f"{name}: {len(failed)} utterances could not be judged; the first {first}", err=True)
    return found
