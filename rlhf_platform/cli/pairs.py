"""`rlhf pairs import` and `rlhf pairs show`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlhf_platform.cli.app import app, plain_errors
from rlhf_platform.errors import DataError

if TYPE_CHECKING:
    from rlhf_platform.data.pairs import Answer, Judgement, Pair
    from rlhf_platform.data.ratings import Verdict

pairs_app = typer.Typer(help="Judged answers: import what people said, look at a file.", no_args_is_help=True)
app.add_typer(pairs_app, name="pairs")


@pairs_app.command("import")
def import_ratings(
    files: Annotated[list[Path], typer.Argument(metavar="RATINGS...", help="CSV files as the raters filled them in.")],
    key: Annotated[Path, typer.Option("--key", metavar="FILE", help="The key.json that was written with the pairs.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write pairs to learn from (docs/preferences.md).")
    ] = None,
    margin: Annotated[
        float, typer.Option("--margin", min=0.0, help="Least margin of a pair that is written; above 0 drops ties.")
    ] = 0.0,
    each_rater: Annotated[
        bool, typer.Option("--each-rater", help="Write a row for each rater, not one for all of them.")
    ] = False,
) -> None:
    """Read ratings of blind pairs: how far raters agree, which system they prefer, pairs to learn from.

    Example: rlhf pairs import ratings.csv --key blind/key.json --out pairs.jsonl
    """
    with plain_errors():
        from rlhf_platform.data import blind_key, pairs, ratings

        pairs_by_name = blind_key.read_key(key)
        read = ratings.read_ratings(files, pairs_by_name)
        found = ratings.verdicts(read, pairs_by_name)
        ties = sum(verdict.lead == 0 for verdict in found)
        typer.echo(f"{len(read.ratings)} ratings of {len(read.raters)} raters: {len(found)} pairs, {ties} of them ties")
        _say_alpha([(rating.item, rating.rater, rating.value) for rating in read.ratings])
        if found:
            typer.echo()
            _show_duels(found)
        if out is None:
            return
        rows = ratings.pairs_of(ratings.each_rater(read, pairs_by_name) if each_rater else found)
        kept = pairs.above_margin(rows, margin)
        if not kept:
            raise DataError(f"no pair to write: none of {len(rows)} has a margin of {margin:g} or more; lower --margin")
        try:
            pairs.write_pairs(out, kept)
        except OSError as error:
            raise DataError(f"--out is {str(out)!r}: {error.strerror}; name a file that can be written") from None
        typer.echo(f"\n{out}: {len(kept)} rows, {sum(pair.tie for pair in kept)} of them ties")


@pairs_app.command("show")
def show_pairs(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file of judged answers (docs/preferences.md).")],
) -> None:
    """Show who judged what: counts by source, margins, ties, how far raters agree.

    Example: rlhf pairs show pairs.jsonl
    """
    with plain_errors():
        from rlhf_platform.data.pairs import Pair, read_pairs

        judgements = read_pairs(file)
        pairs = [judgement for judgement in judgements if isinstance(judgement, Pair)]
        ties = sum(pair.tie for pair in pairs)
        alone = len(judgements) - len(pairs)
        labelled = f"; {alone} labelled" if alone else ""
        prompts = len({judgement.prompt.id for judgement in judgements})
        of = f"of {prompts} prompt{'s' if prompts > 1 else ''}"
        typer.echo(f"{file}: {len(pairs)} pairs, {ties} of them ties{labelled}; {of}")
        typer.echo()
        _show_sources(judgements)
        if any(pair.origin.rater for pair in pairs):
            typer.echo()
            _say_alpha([_vote(pair) for pair in pairs if pair.origin.rater])


def _say_alpha(ratings: Sequence[tuple[str, str, float]]) -> None:
    from rlhf_platform.evaluation.agreement import alpha

    found = alpha(ratings)
    if isinstance(found, str):
        typer.echo(f"agreement of raters (Krippendorff's alpha): none, {found}")
        return
    interval = f"{100 * found.confidence:g} % interval [{found.low:.2f}, {found.high:.2f}]"
    typer.echo(f"agreement of raters (Krippendorff's alpha): {found.point:.2f}, {interval}")


def _show_duels(verdicts: "Sequence[Verdict]") -> None:
    """Which systems the raters prefer. Each two are named in the order of the alphabet."""
    from rlhf_platform.cli.arena import show_duels
    from rlhf_platform.evaluation.arena import tally

    outcomes: dict[tuple[str, str], list[float | None]] = {}
    for verdict in verdicts:
        a, b = verdict.pair.a.system, verdict.pair.b.system
        lead = verdict.lead if a < b else -verdict.lead
        outcomes.setdefault((min(a, b), max(a, b)), []).append(0.5 if lead == 0 else float(lead > 0))
    show_duels([tally(*names, told) for names, told in sorted(outcomes.items())])


def _show_sources(judgements: "Sequence[Judgement]") -> None:
    from rlhf_platform.cli.reward_tables import distribution
    from rlhf_platform.cli.tables import show, table
    from rlhf_platform.data.pairs import Pair

    rows = []
    for source in dict.fromkeys(judgement.origin.source for judgement in judgements):
        its = [judgement for judgement in judgements if judgement.origin.source == source]
        pairs = [judgement for judgement in its if isinstance(judgement, Pair)]
        decided = [pair.margin for pair in pairs if not pair.tie]
        figures = distribution(decided)[1:] if decided else ("",) * 8
        rows.append((source or "not said", len(its), sum(pair.tie for pair in pairs), *figures))
    margins = ("margin: mean", "std", "min", "25 %", "50 %", "75 %", "max")
    show(table(("source", "rows", "ties", *margins, "min to max"), rows, right=("rows", "ties", *margins)))


def _vote(pair: "Pair") -> tuple[str, str, float]:
    """What its rater said of two answers, whichever of them is named first in a row."""
    first, second = sorted((pair.chosen, pair.rejected), key=_words)
    item = repr((pair.prompt.id, _words(first), _words(second)))
    return item, pair.origin.rater, 0.0 if pair.tie else 1.0 if first == pair.chosen else -1.0


def _words(answer: "Answer") -> tuple[str, tuple[int, ...], tuple[int, ...]]:
    return answer.text or "", answer.tokens or (), answer.codec or ()
