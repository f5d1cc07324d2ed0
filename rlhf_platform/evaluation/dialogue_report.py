"""Tables of dialogue evaluations, and a session of them to read and to hear."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.table import Table

from rlhf_platform.data.dialogue import USER
from rlhf_platform.errors import DataError
from rlhf_platform.evaluation.bootstrap import Interval
from rlhf_platform.evaluation.dialogue import EVASIVE, DialogueResult, Reply, by_turn, difference, win_rate
from rlhf_platform.evaluation.speech import ENDED, QUALITY, UNSCORED

CLIPS = "session"
"""Folder of the clips of the session that is shown."""


def table(
    results: Mapping[str, DialogueResult],
    title: str,
    confidence: float,
    resamples: int,
    won_by: Sequence[str] = (QUALITY,),
) -> Table:
    """A row per score and a column per policy, the first of which is the start that the others are compared with.

    `won_by`: the scores by each of which an answer wins against the start's.
    """
    (start_name, start), *others = results.items()
    shown = Table(title=title, box=box.SIMPLE_HEAD)
    shown.add_column("held-out score", no_wrap=True)
    shown.add_column(start_name, justify="right", no_wrap=True)
    for name, _ in others:
        shown.add_column(name, justify="right", no_wrap=True)
        shown.add_column(f"difference, {100 * confidence:g} %", justify="right", no_wrap=True)
    for score in dict.fromkeys([*start.names, EVASIVE, ENDED, UNSCORED]):
        row = [score, f"{start.mean(score):.3f}"]
        for _, other in others:
            gap = difference(start, other, score, confidence, resamples)
            row += [f"{other.mean(score):.3f}", _interval(gap, "+.3f") if gap else "-"]
        shown.add_row(*row)
    for score in won_by:
        row = ["win rate, %" if score == QUALITY else f"win rate by {score}, %", ""]
        for _, other in others:
            duel = win_rate(start, other, score, confidence=confidence, resamples=resamples)
            row += ["-", "-"] if duel is None else _percent(duel.rate)
        shown.add_row(*row)
    return shown


def turn_table(results: Mapping[str, DialogueResult], name: str, confidence: float, resamples: int) -> Table:
    """A score by the number of the user's turn: a row per turn, and a column per policy, with intervals."""
    shown = Table(title=f"{name} by turn", box=box.SIMPLE_HEAD)
    shown.add_column("turn", no_wrap=True)
    shown.add_column("replies", justify="right", no_wrap=True)
    for label in results:
        shown.add_column(f"{label}, {100 * confidence:g} %", justify="right", no_wrap=True)
    found = {label: by_turn(result, name, confidence, resamples) for label, result in results.items()}
    replies = next(iter(results.values())).replies
    for turn in sorted({each.turn for each in replies}):
        cells = [_interval(means[turn], ".3f") if turn in means else "-" for means in found.values()]
        shown.add_row(str(turn), str(sum(each.turn == turn for each in replies)), *cells)
    return shown


def longest_session(result: DialogueResult) -> str:
    """The prompt from which the most turns were answered, and of several the one with most said before."""
    played = [each.first_id for each in result.replies]
    return max(result.replies, key=lambda each: (played.count(each.first_id), each.turn)).first_id


def write_session(folder: Path, results: Mapping[str, DialogueResult], first_id: str) -> Path:
    """Write `session.md` with what each policy answered from that prompt on, and the clips of the user beside it.

    Raises `DataError` when a policy was not asked it or a clip cannot be copied.
    """
    clips: dict[str, str] = {}
    parts = []
    for label, result in results.items():
        replies = sorted((each for each in result.replies if each.first_id == first_id), key=lambda each: each.turn)
        if not replies:
            raise DataError(f"{result.label}: no prompt {first_id!r}")
        heard = [path for each in replies for path in (*(turn.audio for turn in each.history), each.audio)]
        for audio in filter(None, heard):
            clips.setdefault(audio, f"{CLIPS}/{len(clips) + 1:02d}{Path(audio).suffix}")
        parts.append(f"## {label}\n\n{transcript(replies, clips)}")
    (folder / CLIPS).mkdir(exist_ok=True)
    for audio, place in clips.items():
        try:
            shutil.copyfile(audio, folder / place)
        except OSError as error:
            raise DataError(f"{audio}: cannot be copied to {folder / place}: {error.strerror}") from None
    path = folder / "session.md"
    path.write_text(f"# Session {first_id}\n\nPersona: {replies[0].persona or 'none'}\n\n" + "\n".join(parts), "utf-8")
    return path


def transcript(replies: Sequence[Reply], clips: Mapping[str, str]) -> str:
    """The answered turns of one session as Markdown, after what was said before the first of them.

    `clips`: how the path of a clip is linked to.
    """
    lines = [
        f"- **{turn.role}**: {_plain(turn.text)}{_link(turn.audio, clips)}" if turn.role == USER else _said(turn.text)
        for turn in replies[0].history
    ]
    for each in replies:
        lines.append(f"- **{USER}**: {_plain(each.said)}{_link(each.audio, clips)}")
        if each.reasoning:
            lines.append(f"  - *thinks*: {_plain(each.reasoning)}")
        lines.append(_said(each.reply or "(nothing)"))
        lines.append(f"  - reference: {_plain(each.reference or 'none')}")
        if each.scores:
            lines.append("  - " + ", ".join(f"{name} {value:.2f}" for name, value in each.scores.items()))
    return "\n".join(lines) + "\n"


def _said(text: str) -> str:
    return f"- **assistant**: {_plain(text)}"


def _plain(text: str) -> str:
    """On one line, with nothing that Markdown or HTML would read."""
    kept = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{c}" if c in "\\`*_[]|" else c for c in kept)


def _link(audio: str, clips: Mapping[str, str]) -> str:
    return f" ([listen]({clips[audio]}))" if audio in clips else ""


def _interval(found: Interval, form: str) -> str:
    return f"{found.point:{form}} [{found.low:{form}}, {found.high:{form}}]"


def _percent(rate: Interval) -> list[str]:
    return [f"{100 * rate.point:.1f}", f"[{100 * rate.low:.1f}, {100 * rate.high:.1f}]"]
