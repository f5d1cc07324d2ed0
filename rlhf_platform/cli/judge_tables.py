"""How the figures of a judge are printed by `rlhf judge calibrate`."""

from collections.abc import Sequence

import typer

from rlhf_platform.cli.tables import show, table
from rlhf_platform.evaluation.ablation import Setting
from rlhf_platform.evaluation.bootstrap import Interval
from rlhf_platform.evaluation.calibration import LEVELS, Calibration
from rlhf_platform.evaluation.injection import Injection

_INTERVAL = "95 % interval"


def show_calibration(found: Calibration) -> None:
    """Print the figures, the accuracy by criterion, and levels by label."""
    failures = ", ".join(f"{count} {kind}" for kind, count in found.failures.items())
    typer.echo(f"{found.pairs} pairs judged, {found.ties} of them ties" + (f"; failed: {failures}" if failures else ""))
    rows = [
        ("accuracy, abstaining is half", *_percent(found.accuracy)),
        ("accuracy of mean levels", *_percent(found.accuracy_kept)),
        *((f"  {name} ({pairs})", *_percent(interval)) for name, (pairs, interval) in found.criteria.items()),
        ("order bias", *_percent(found.order_bias, signed=True)),
        ("length bias", *_percent(found.length_bias, signed=True)),
        ("length correlation", _plain(found.length_correlation, "+.2f"), ""),
        ("orders that agree", _share(found.order_agreement), ""),
        ("votes that agree", _share(found.vote_agreement), ""),
        ("abstained", _share(found.abstained), ""),
        ("remembered", _share(found.cached), ""),
        ("verdicts per second", _plain(found.verdicts_per_s, ".1f"), ""),
        ("tokens per second", _plain(found.tokens_per_s, ".0f"), ""),
    ]
    typer.echo()
    show(table(("figure", "%", _INTERVAL), rows, right=("%", _INTERVAL)))
    typer.echo()
    levels = [f"{level:+d}" if level else "0" for level in LEVELS]
    counts = [(label, *(its[level] for level in LEVELS)) for label, its in found.confusion.items()]
    show(table(("label / level of a", *levels), counts, right=levels))


def show_ablation(settings: Sequence[Setting]) -> None:
    """Print a row for each way to ask."""
    rows = [
        (
            each.name,
            "both" if each.swap else "one",
            each.pairs,
            *_percent(each.accuracy),
            *_percent(each.accuracy_kept),
            f"{each.tokens:.0f}",
        )
        for each in settings
    ]
    kept = ("of mean levels, %", f"{_INTERVAL} of it")
    headings = ("votes", "orders", "pairs", "accuracy, %", _INTERVAL, *kept, "tokens per pair")
    show(table(headings, rows, right=headings[2:]))


def show_injection(found: Injection) -> None:
    """Print a row for each attack, with the control of the same length beside it."""
    typer.echo(f"{found.trials} trials of {len(found.attacks)} attacks on {found.pairs} pairs; {found.failed} failed")
    named = [("all", found.attack, found.control)]
    named += [(name, gain, found.controls[name]) for name, gain in found.attacks.items()]
    rows = [
        (
            name,
            f"{gain.level.point:+.2f}",
            f"[{gain.level.low:+.2f}, {gain.level.high:+.2f}]",
            f"{control.level.point:+.2f}",
            *_percent(gain.win_rate, signed=True),
            _percent(control.win_rate, signed=True)[0],
        )
        for name, gain, control in named
    ]
    won = ("wins, % points", f"{_INTERVAL} of it", "harmless wins")
    headings = ("attack", "level", _INTERVAL, "harmless level", *won)
    typer.echo()
    show(table(headings, rows, right=headings[1:]))
    typer.echo(f"\nbound: wins of a bad reply rise by at most {100 * found.bound:.1f} % points ({found.worst})")


def _percent(interval: Interval | None, signed: bool = False) -> tuple[str, str]:
    if interval is None:
        return "-", ""
    plus = "+" if signed else ""
    point, low, high = (f"{100 * value + 0.0:{plus}.1f}" for value in (interval.point, interval.low, interval.high))
    return point, f"[{low}, {high}]"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _plain(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
