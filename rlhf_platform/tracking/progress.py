"""What a person sees: live bars on a terminal, plain lines elsewhere."""

import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_EVERY = 15.0
"""Seconds between plain lines of one phase, where there is no terminal."""


class Phase:
    """One phase of known length: `update` says how far it is."""

    def __init__(self, display: "Display", name: str, total: int, done: int) -> None:
        self._display, self._name, self._total, self._first = display, name, total, done
        self._started = time.monotonic()
        self._printed = 0.0
        self._task = display.bars.add_task(name, total=total, completed=done, numbers="") if display.bars else None

    def resize(self, done: int, total: int) -> None:
        """`update` for a phase whose length is only known once it runs."""
        self._total = total
        if self._display.bars and self._task is not None:
            self._display.bars.update(self._task, total=total)
        self.update(done)

    def drop(self) -> None:
        """Take its bar away."""
        if self._display.bars and self._task is not None:
            self._display.bars.remove_task(self._task)

    def update(self, done: int, numbers: str = "", *, always: bool = False) -> None:
        """`done` of the phase's total. `always`: print a plain line however recent the last one is."""
        if self._display.bars and self._task is not None:
            self._display.bars.update(self._task, completed=done, numbers=numbers)
            return
        now = time.monotonic()
        if always or done >= self._total or now - self._printed >= LINE_EVERY:
            self._printed = now
            here = done - self._first
            left = (now - self._started) / here * (self._total - done) if here else float("nan")
            eta = f", {left:.0f} s left" if here and done < self._total else ""
            self._display.line(f"{self._name} {done}/{self._total}{eta}{'  ' + numbers if numbers else ''}")


class Display:
    """A person's view of a run."""

    def __init__(self, console: Console | None = None) -> None:
        # Not a terminal: no wrapping, one line a fact.
        self.console = console or (Console() if sys.stdout.isatty() else Console(width=200, color_system=None))
        self.bars: Progress | None = None
        self._started = time.monotonic()

    def line(self, text: str) -> None:
        """One line, with minutes and seconds since the start."""
        passed = int(time.monotonic() - self._started)
        self.console.print(f"[{passed // 60:02d}:{passed % 60:02d}] {text}", markup=False, highlight=False)
        self.console.file.flush()

    def show(self, what: RenderableType) -> None:
        """A table or a text as it is."""
        self.console.print(what)

    @contextmanager
    def phase(self, name: str, total: int, done: int = 0) -> Iterator[Phase]:
        """A bar (or lines) for the time of the block. `done`: what was done before, in an earlier start."""
        if not self.console.is_terminal:
            yield Phase(self, name, total, done)
            return
        if self.bars:  # within another phase, whose bar goes on below
            inner = Phase(self, name, total, done)
            try:
                yield inner
            finally:
                inner.drop()
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
        )
        with Progress(*columns, console=self.console, transient=False) as bars:
            self.bars = bars
            try:
                yield Phase(self, name, total, done)
            finally:
                self.bars = None


def step_numbers(metrics: Mapping[str, float]) -> str:
    """The numbers of an RL step that a person asks for, on one line."""
    phases = " ".join(
        f"{name.removeprefix('seconds/')} {value:.1f}"
        for name, value in metrics.items()
        if re.fullmatch("seconds/[a-z]+", name)
    )
    failed = int(metrics.get("reward_failed", 0))
    without = f" ({failed} samples without)" if failed else ""
    heard = f"  WER {100 * metrics['sample_wer']:.1f} %" if "sample_wer" in metrics else ""
    return (
        f"reward {metrics['reward']:.3f}{without}{heard}  KL {metrics['kl']:.4f}  "
        f"mismatch {metrics['logprob_diff_max']:.1e} before sync, {metrics['probe_diff_max']:.1e} after  "
        f"[{phases} s]"
    )
