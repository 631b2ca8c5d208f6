"""The progress of a run on a terminal: counts, rate, remaining time."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from cronrunner.events import ClaimRefused, Event, ExecutionFinished, RunPlanned, RunStarted
from cronrunner.model import WELL, Outcome


class Progress:
    """A listener which draws a bar on stderr."""

    def __init__(self) -> None:
        self._bar = Bar(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[outcomes]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._lock = threading.Lock()
        self._outcomes: Counter[Outcome] = Counter()
        self._task = self._bar.add_task("discovering", total=None, rate="", outcomes="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def on(self, event: Event) -> None:
        """Draw what happened."""
        match event:
            case RunStarted():
                self._bar.reset(self._task, total=None, description="discovering")
            case RunPlanned(executions=executions):
                self._bar.reset(self._task, total=executions, description="running")
            case ExecutionFinished(result=result):
                self._advance(result.outcome)
            case ClaimRefused():
                self._bar.advance(self._task)
            case _:
                pass

    def _advance(self, outcome: Outcome) -> None:
        with self._lock:
            self._outcomes[outcome] += 1
            well = sum(self._outcomes[each] for each in WELL)
            unwell = self._outcomes.total() - well
        speed = self._bar.tasks[0].speed
        rate = f"{speed:.0f}/s" if speed else ""
        outcomes = f"[green]{well} well[/]" + (f" [red]{unwell} not[/]" if unwell else "")
        self._bar.update(self._task, advance=1, rate=rate, outcomes=outcomes)
