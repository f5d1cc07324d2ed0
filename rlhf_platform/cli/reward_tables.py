"""How the answers of a reward are printed by `rlhf rewards test`."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import typer

from rewards.answers import Answer
from rewards.types import RewardInput
from rlhf_platform.cli.tables import show, table
from rlhf_platform.train.spread import deviation, mean, values_by_name
from rlhf_platform.types import Failed

_BINS = 10
_BARS = " ▁▂▃▄▅▆▇█"
_QUARTILES = (25, 50, 75)


def render(
    name: str,
    samples: Sequence[RewardInput],
    answers: Sequence[Answer],
    seconds: Sequence[float],
    took: float,
    shown: int,
) -> None:
    """Print everything. `seconds`: of each sample; `took`: of all together; `shown`: of the highest and the lowest."""
    numbers = [numbers_of(name, answer) for answer in answers]
    scored = [(each[name], sample) for each, sample in zip(numbers, samples, strict=True) if each]
    failed = [answer for answer in answers if isinstance(answer, Failed)]
    typer.echo(f"{name}: {len(samples)} samples, {len(scored)} scored, {len(failed)} failed")
    if scored:
        headings = ("answer", "count", "mean", "std", "min", *(f"{q} %" for q in _QUARTILES), "max", "min to max")
        rows = [(each, *distribution(values)) for each, values in values_by_name(numbers).items()]
        typer.echo()
        show(table(headings, rows, right=headings[1:-1]))
    if failed:
        counts = {kind: [f for f in failed if f.kind == kind] for kind in sorted({f.kind for f in failed})}
        typer.echo("\nfailures")
        rows = [(kind, len(each), each[0].message) for kind, each in counts.items()]
        show(table(("kind", "samples", "first message"), rows, right=("samples",)))
    median, late = map(_time, np.percentile(seconds, (50, 95)))
    typer.echo(f"\ntime per sample: median {median}, 95 % {late}, max {_time(max(seconds))}; in all {_time(took)}")
    ranked = sorted(scored, key=lambda pair: -pair[0])
    for title, chosen in (("highest", ranked[:shown]), ("lowest", ranked[::-1][:shown])):
        if chosen:
            typer.echo(f"\n{title}")
            rows = [(f"{value:.4g}", s.prompt_id, s.text, s.reference, s.audio) for value, s in chosen]
            show(table((name, "id", "text", "reference", "audio"), rows, right=(name,)))


def numbers_of(name: str, answer: Answer) -> Mapping[str, float]:
    """An answer's number under `name`, and the parts of a dict as `name.part`; nothing of a failure.

    As in a run, a dict counts as the sum of its numbers.
    """
    if isinstance(answer, Failed):
        return {}
    if isinstance(answer, float):
        return {name: answer}
    return {name: sum(answer.values())} | {f"{name}.{part}": value for part, value in answer.items()}


def distribution(values: Sequence[float]) -> tuple[object, ...]:
    """Count, mean, standard deviation, least, quartiles, greatest, histogram."""
    figures = [mean(values), deviation(values), min(values), *np.percentile(values, _QUARTILES), max(values)]
    return len(values), *(f"{figure + 0.0:.4g}" for figure in figures), histogram(values)  # + 0.0: no `-0`


def histogram(values: Sequence[float]) -> str:
    """Ten bars for ten equal ranges from the least to the greatest value; what is not empty shows."""
    low, high = min(values), max(values)
    width = (high - low) / _BINS
    if width == 0 or not math.isfinite(width):
        return ""
    bins = [min(_BINS - 1, int((value - low) / width)) for value in values]
    counts = [bins.count(bin_) for bin_ in range(_BINS)]
    return "".join(_BARS[math.ceil(count / max(counts) * (len(_BARS) - 1))] for count in counts)


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
