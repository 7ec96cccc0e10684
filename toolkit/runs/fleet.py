"""One view of many jobs: how many are done, which run, how long it will take. Bars on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from toolkit.runs.executors import Job, Outcome


class FleetView:
    """Shows progress of `toolkit.runs.executors.drive`.

    Args:
        title: what runs.
        stream: where to write; standard error by default.
        bars: draw bars on a terminal; off where jobs run in this process and draw their own.
    """

    def __init__(self, title: str, stream: TextIO | None = None, bars: bool = True):
        self.title, self.wants_bars = title, bars
        self.console = Console(file=stream or sys.stderr)
        self.total = self.before = self.done = 0
        self.started = time.monotonic()
        self.bars: Progress | None = None

    def __enter__(self) -> FleetView:
        if self.wants_bars and self.console.is_terminal:
            self.bars = Progress(TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(),
                                 TimeElapsedColumn(), TextColumn("{task.fields[note]}"),
                                 console=self.console)  # fmt: skip
            self.bars.start()
            self.row = self.bars.add_task(self.title, total=None, note="")
        return self

    def __exit__(self, *_: object) -> None:
        if self.bars is not None:
            self.bars.stop()
            self.bars = None

    def begin(self, total: int, done: int) -> None:
        """Set the number of jobs and how many were finished before."""
        self.total, self.before, self.done = total, done, done
        self.started = time.monotonic()
        if self.bars is not None:
            self.bars.update(self.row, total=total, completed=done)
        self.say(f"{self.title}: {total} in all, {done} finished before")

    def count(self, done: int) -> None:
        """Set how many are finished, where single outcomes are not seen."""
        more, self.done = done > self.done, done
        if self.bars is not None:
            self.bars.update(self.row, completed=done)
        elif more:
            self.say(f"{self.title}: {done}/{self.total} {self.left()}")

    def tick(self, running: list[Job], waiting: int) -> None:
        """Show what runs now and the time left."""
        if self.bars is not None:
            names = ", ".join(job.title or job.key for job in running[:2]) + (" ..." if len(running) > 2 else "")
            busy = f"{len(running)} running: {names}" if running else "waiting for others" if waiting else ""
            self.bars.update(self.row, note=f"{self.left()}  {busy}")

    def ended(self, outcome: Outcome) -> None:
        """A job has ended."""
        self.done += 1
        if self.bars is not None:
            self.bars.update(self.row, completed=self.done)
        note = "" if outcome.status == "done" else f": {outcome.status}: {outcome.error}"
        name = outcome.job.title or outcome.job.key
        self.say(f"{self.title}: {self.done}/{self.total} {name}{note} {self.left()}")

    def left(self) -> str:
        """``about 3 min left``, from the jobs of this session."""
        mine = self.done - self.before
        if not mine or self.done >= self.total:
            return ""
        seconds = (time.monotonic() - self.started) / mine * (self.total - self.done)
        unit = next((u for u in (("h", 3600), ("min", 60)) if seconds >= 2 * u[1]), ("s", 1))
        return f"(about {seconds / unit[1]:.0f} {unit[0]} left)"

    def say(self, text: str) -> None:
        """A line, above the bar where there is one."""
        if self.bars is not None:
            self.bars.console.print(text, highlight=False)
        else:
            print(text.rstrip(), file=self.console.file, flush=True)
