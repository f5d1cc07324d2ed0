"""`rlhf runs` and `rlhf compare`: what runs left, read and nothing else."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlhf_platform.cli.app import app, plain_errors

if TYPE_CHECKING:
    from rlhf_platform.evaluation.report import Row
    from rlhf_platform.tracking.comparison import KeyDifference, Training
    from rlhf_platform.tracking.history import Run

RUNS = Path("runs")
RunName = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, or its name below --runs.")]
RunsDir = Annotated[Path, typer.Option("--runs", metavar="DIR", help="The folder that holds the runs.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON: seconds since 1970, error rates as shares.")]


@app.command()
def runs(
    parent: Annotated[Path, typer.Argument(metavar="[DIR]", help="The folder that holds the runs.")] = RUNS,
    as_json: AsJson = False,
) -> None:
    """List runs: state, step, how long each took, held-out WER before and after.

    Example: rlhf runs
    """
    with plain_errors():
        from rlhf_platform.tracking.history import find_runs

        now = time.time()
        found = [_summary(run, now) for run in find_runs(parent)]
        if as_json:
            typer.echo(json.dumps(found, indent=1))
        elif found:
            _show_runs(found)
        else:
            typer.echo(f"no runs in {parent}; `rlhf run RECIPE` makes one")


@app.command()
def compare(
    a: RunName,
    b: RunName,
    parent: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Compare two runs: recipe keys, held-out WER, metrics of training, with intervals of the differences.

    Example: rlhf compare first second
    """
    with plain_errors():
        from rlhf_platform.errors import RunError
        from rlhf_platform.tracking import comparison
        from rlhf_platform.tracking.history import find_run

        first, second = find_run(a, parent), find_run(b, parent)
        keys = comparison.recipe_differences(first.recipe, second.recipe)
        problems: dict[str, str] = {}
        heldout: list[Row] = []
        training: Training | None = None
        try:
            heldout = comparison.heldout(first, second)
        except RunError as error:
            problems["heldout"] = str(error)
        try:
            training = comparison.training(first, second)
        except RunError as error:
            problems["training"] = str(error)
        if as_json:
            typer.echo(json.dumps(_comparison(first, second, keys, heldout, training, problems), indent=1))
        else:
            typer.echo(f"A is {first.path}, B is {second.path}")
            _show_keys(keys)
            _show_heldout(heldout, problems)
            _show_training(training, problems)


def _summary(run: "Run", now: float) -> dict[str, Any]:
    status, results = run.status, run.results
    updated = status.get("updated")
    return {
        "run": run.path.name,
        "recipe": run.recipe.get("name"),
        "algorithm": run.recipe.get("algorithm", {}).get("type"),
        "state": run.state(now),
        "phase": status.get("phase"),
        "step": status.get("step"),
        "steps": run.steps,
        "started": status.get("started"),
        "updated": updated,
        "seconds": run.seconds(now),
        "seconds_since_update": None if updated is None else now - updated,
        "wer_before": results.get("wer_before"),
        "wer_after": results.get("wer_after"),
        "error": status.get("error"),
    }


def _show_runs(found: list[dict[str, Any]]) -> None:
    from rlhf_platform.cli.tables import lasting, show, table

    rows = []
    for run in found:
        wer = [run["wer_before"], run["wer_after"]]
        rows.append(
            (
                run["run"],
                run["state"],
                run["phase"] or "",
                f"{run['step']}/{run['steps']}" if run["steps"] is not None else run["step"],
                time.strftime("%Y-%m-%d %H:%M", time.localtime(run["started"])) if run["started"] else "",
                lasting(run["seconds"]),
                " -> ".join(f"{100 * rate:.2f}" for rate in wer) if None not in wer else "",
                run["algorithm"] or "",
                run["recipe"] or "",
                lasting(run["seconds_since_update"]) + " ago",
            )
        )
    headings = ("run", "state", "phase", "step", "started", "took", "WER %", "algorithm", "recipe", "last word")
    show(table(headings, rows, right=("step", "took", "WER %", "last word")))


def _show_keys(keys: "list[KeyDifference]") -> None:
    from rlhf_platform.cli.tables import show, table

    if not keys:
        typer.echo("\nThe recipes are the same.")
        return
    rows = [(key.key, _value(key.a), _value(key.b)) for key in keys]
    typer.echo("\nRecipe keys that differ:")
    show(table(("key", "A", "B"), rows))


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _show_heldout(rows: "list[Row]", problems: dict[str, str]) -> None:
    from rlhf_platform.cli.tables import show, table

    if not rows:
        typer.echo(f"\nHeld-out WER: not compared. {problems['heldout']}")
        return
    cells = [
        (
            row.group,
            row.clips,
            f"{100 * row.before.wer:.2f}",
            f"{100 * row.after.wer:.2f}",
            f"{100 * row.difference.point:+.2f}",
            f"[{100 * row.difference.low:+.2f}, {100 * row.difference.high:+.2f}]",
        )
        for row in rows
    ]
    headings = ("group", "clips", "A", "B", "B - A", f"{100 * rows[0].difference.confidence:g} % interval")
    typer.echo("\nHeld-out word error rate of the final weights, %; paired bootstrap over clips:")
    show(table(headings, cells, right=headings[1:]))


def _show_training(training: "Training | None", problems: dict[str, str]) -> None:
    from rlhf_platform.cli.tables import show, table
    from rlhf_platform.evaluation.blocks import LEAST

    if training is None:
        typer.echo(f"\nTraining: not compared. {problems['training']}")
        return
    cells = []
    for metric in training.metrics:
        d = metric.difference
        interval = f"[{d.low:+.4g}, {d.high:+.4g}]" if d else f"fewer than {LEAST} steps"
        cells.append((metric.name, f"{metric.a:.4g}", f"{metric.b:.4g}", f"{metric.b - metric.a:+.4g}", interval))
    (a0, a1), (b0, b1) = training.steps_a, training.steps_b
    how = "paired by step" if training.paired else "unpaired"
    length = " and ".join(map(str, dict.fromkeys(training.blocks)))
    typer.echo(f"\nMetrics of training, means over the last quarter of steps ({a0} to {a1} of A, {b0} to {b1} of B):")
    headings = ("metric", "A", "B", "B - A", "95 % interval")
    show(table(headings, cells, right=headings[1:]))
    typer.echo(
        f"Intervals: bootstrap over blocks of {length} steps in a row, {how}. Steps of a run hang together, so take "
        "the intervals as rough;\nand of twenty metrics that do not differ, one leaves 0 outside by chance."
    )


def _comparison(
    a: "Run",
    b: "Run",
    keys: "list[KeyDifference]",
    heldout: "list[Row]",
    training: "Training | None",
    problems: dict[str, str],
) -> dict[str, Any]:
    return {
        "a": str(a.path),
        "b": str(b.path),
        "recipe": {key.key: {"a": key.a, "b": key.b} for key in keys},
        "heldout": [
            {
                "group": row.group,
                "clips": row.clips,
                "wer_a": row.before.wer,
                "wer_b": row.after.wer,
                "difference": asdict(row.difference),
            }
            for row in heldout
        ],
        "training": asdict(training) if training else None,
        "problems": problems,
    }
