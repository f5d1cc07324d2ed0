"""What an evaluation found, clip by clip, and the table that compares two of them."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from io import StringIO
from typing import Any, Self, TypeVar

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from rewards.asr.errors import WordErrors, word_errors
from rlhf_platform.data.text import PLAIN
from rlhf_platform.evaluation.bootstrap import Interval, wer_difference
from rlhf_platform.evaluation.wer import total
from rlhf_platform.types import Prompt

T = TypeVar("T")

ALL = "all"
"""The group of every clip, and of a clip whose manifest row has no `group`."""


@dataclass(frozen=True)
class Utterance:
    """One clip, decoded and compared."""

    prompt_id: str
    speaker: str
    group: str
    """The manifest row's `group` (recorded, seen voices, unseen voices, ...), or `all`."""
    reference: str
    hypothesis: str
    errors: WordErrors


@dataclass(frozen=True)
class EvalResult:
    """One decoding of a test set."""

    label: str
    """Which weights, e.g. `warm start` or `step 40`."""
    utterances: tuple[Utterance, ...]
    normalizer: str = PLAIN

    @property
    def total(self) -> WordErrors:
        """Errors of the whole set; `.wer` is the corpus WER."""
        return total(u.errors for u in self.utterances)

    def to_json(self) -> str:
        """One JSON document, read by `from_json`."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads what `to_json` wrote. Raises `KeyError` or `TypeError` when it is something else."""
        record: dict[str, Any] = json.loads(text)
        utterances = (Utterance(**{**u, "errors": WordErrors(**u["errors"])}) for u in record["utterances"])
        # Runs from before there were two normalisers have the version of the one.
        normalizer = record.get("normalizer") or f"plain-{record['normalizer_version']}"
        return cls(record["label"], tuple(utterances), normalizer)


@dataclass(frozen=True)
class Row:
    """Before and after on one group of clips; with several decodings their errors and words are added up."""

    group: str
    clips: int
    before: WordErrors
    after: WordErrors
    difference: Interval
    """WER after minus before."""


def evaluate(label: str, prompts: Sequence[Prompt], hypotheses: Sequence[str], normalizer: str = PLAIN) -> EvalResult:
    """Compares one hypothesis per prompt with its reference. Raises `ValueError` when the counts disagree."""
    return EvalResult(
        label,
        tuple(
            Utterance(
                prompt_id=prompt.id,
                speaker=prompt.speaker,
                group=str(prompt.metadata.get("group", ALL)),
                reference=prompt.reference,
                hypothesis=hypothesis,
                errors=word_errors(prompt.reference, hypothesis, prompt.language, normalizer),
            )
            for prompt, hypothesis in zip(prompts, hypotheses, strict=True)
        ),
        normalizer,
    )


def compare(
    before: Sequence[EvalResult],
    after: Sequence[EvalResult],
    *,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[Row]:
    """A row for all clips, then one per group in order of appearance, if there is more than one.

    `before`, `after`: decodings of the same clips, one or several (seeds) each. Raises `ValueError` when the
    clips or the normaliser differ, or there is no reference word at all. A group without one (noise, say) has
    no WER and no row; its insertions count in the first row.
    """
    results = [*before, *after]
    first = results[0]
    ids = [u.prompt_id for u in first.utterances]
    if len(set(ids)) != len(ids):
        raise ValueError(f"{first.label!r} has a prompt id twice: every clip counts once")
    for other in results[1:]:
        if [u.prompt_id for u in other.utterances] != ids:
            raise ValueError(f"{first.label!r} and {other.label!r} decoded different clips: use the same ones")
        if other.normalizer != first.normalizer:
            versions = f"{first.normalizer!r} and {other.normalizer!r}"
            raise ValueError(f"{first.label!r}, {other.label!r}: normalisers {versions} differ, evaluate again")

    members: dict[str, list[int]] = {}
    for i, utterance in enumerate(first.utterances):
        members.setdefault("no group" if utterance.group == ALL else utterance.group, []).append(i)
    shown = {ALL: list(range(len(ids)))}
    for name, clips in members.items():
        if len(members) > 1 and any(first.utterances[i].errors.reference_words for i in clips):
            shown[name] = clips
    return [
        Row(
            group=name,
            clips=len(clips),
            before=total(r.utterances[i].errors for r in before for i in clips),
            after=total(r.utterances[i].errors for r in after for i in clips),
            difference=wer_difference(
                _errors(before, clips),
                _errors(after, clips),
                np.array([first.utterances[i].errors.reference_words for i in clips]),
                resamples=resamples,
                confidence=confidence,
                seed=seed,
            ),
        )
        for name, clips in shown.items()
    ]


def render(rows: Sequence[Row], title: str = "") -> Table:
    """The comparison as a table for a terminal. WER in percent, differences in percentage points."""
    confidence = f"{100 * rows[0].difference.confidence:g} %" if rows else ""
    table = Table(title=title or None, box=box.SIMPLE_HEAD)
    table.add_column("group", no_wrap=True)
    headings = ("clips", "WER before", "WER after", "difference", f"{confidence} interval")
    for heading in (*headings, "sub / del / ins before", "after"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        d = row.difference
        table.add_row(
            row.group,
            str(row.clips),
            f"{100 * row.before.wer:.2f}",
            f"{100 * row.after.wer:.2f}",
            f"{100 * d.point:+.2f}",
            f"[{100 * d.low:+.2f}, {100 * d.high:+.2f}]",
            _kinds(row.before),
            _kinds(row.after),
        )
    return table


@dataclass(frozen=True)
class Rates:
    """The WER of one decoding."""

    overall: Interval
    table: Table
    """A row for all clips and one per group, in percent."""


def rate_table(result: EvalResult, *, resamples: int = 10_000, confidence: float = 0.95) -> Rates:
    """The WER of all clips and of each group, with its bootstrap interval. Raises `ValueError` without a word."""
    # Against a decoding without a mistake, the difference is the rate itself.
    words = [u.errors.reference_words for u in result.utterances]
    faultless = (replace(u, errors=WordErrors(0, 0, 0, n)) for u, n in zip(result.utterances, words, strict=True))
    perfect = replace(result, utterances=tuple(faultless))
    rows = compare([perfect], [result], resamples=resamples, confidence=confidence)
    table = Table(title="Held-out word error rate, %", box=box.SIMPLE_HEAD)
    for heading in ("group", "clips", "WER", f"{100 * confidence:g} % interval", "sub / del / ins"):
        table.add_column(heading, justify="left" if heading == "group" else "right", no_wrap=True)
    for row in rows:
        rate = row.difference
        interval = f"[{100 * rate.low:.2f}, {100 * rate.high:.2f}]"
        table.add_row(row.group, str(row.clips), f"{100 * rate.point:.2f}", interval, _kinds(row.after))
    return Rates(rows[0].difference, table)


def lines(rows: Sequence[Row], title: str = "") -> list[str]:
    """The table of `render` as plain text, for logs and files."""
    return as_lines(render(rows, title))


def as_lines(table: Table) -> list[str]:
    """A table as plain text."""
    text = StringIO()
    Console(file=text, width=200, color_system=None).print(table)
    return [line.rstrip() for line in text.getvalue().splitlines() if line.strip()]


def spread(items: Sequence[T], count: int) -> list[T]:
    """At most `count` of the items, evenly spread over them."""
    every = max(1, len(items) // count)
    return list(items)[::every][:count]


def examples(before: EvalResult, after: EvalResult, count: int) -> str:
    """`count` clips, evenly spread over the set, as a Markdown table: what was said and heard before and after."""
    rows = ["| clip | group | transcript | before | after | WER before | after |", "|---|---|---|---|---|---|---|"]
    for old, new in spread(list(zip(before.utterances, after.utterances, strict=True)), count):
        texts = (text.replace("|", "\\|") for text in (old.reference, old.hypothesis, new.hypothesis))
        rates = (f"{100 * u.errors.wer:.0f} %" for u in (old, new))
        rows.append(f"| {' | '.join([f'`{old.prompt_id}`', old.group, *texts, *rates])} |")
    return "\n".join(rows) + "\n"


def _errors(results: Sequence[EvalResult], clips: Sequence[int]) -> np.ndarray:
    """Errors (R, N) of R decodings of the chosen N clips."""
    return np.array([[r.utterances[i].errors.errors for i in clips] for r in results])


def _kinds(errors: WordErrors) -> str:
    """Each kind per hundred reference words."""
    counts = (errors.substitutions, errors.deletions, errors.insertions)
    return " / ".join(f"{100 * count / errors.reference_words:.1f}" for count in counts)
