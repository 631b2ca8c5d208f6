"""The progress of a run on a terminal: counts, rate, remaining time."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as Bar
from rich.text import Text

from cronrunner.estimate import Remaining
from cronrunner.events import (
    AttemptFailed,
    ClaimRefused,
    Event,
    ExecutionFinished,
    ExecutionStarted,
    RunPlanned,
    RunStarted,
)
from cronrunner.model import WELL, Outcome, Result


class Progress:
    """A listener which draws a bar on stderr."""

    def __init__(self, permits: Callable[[str], int]) -> None:
        """``permits`` tells how many visits a server may have at once."""
        self._left = TimeLeft(permits)
        self._bar = Bar(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[outcomes]}"),
            TimeElapsedColumn(),
            _LeftColumn(self._left),
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
        self._left.on(event)
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


class TimeLeft:
    """A listener which knows how long a run will still take. Thread-safe."""

    def __init__(self, permits: Callable[[str], int]) -> None:
        """``permits`` tells how many visits a server may have at once."""
        self._permits = permits
        self._lock = threading.Lock()
        self._remaining: Remaining | None = None

    def on(self, event: Event) -> None:
        """Take note of what the rest of the run depends on."""
        if isinstance(event, RunPlanned):
            self._remaining = Remaining(
                event.visits, concurrency=event.concurrency, permits=self._permits
            )
        elif (remaining := self._remaining) is not None:
            with self._lock:
                _note(remaining, event, time.monotonic())

    def seconds(self) -> float | None:
        """Return how long it is; ``None`` if nothing is known of it yet."""
        if self._remaining is None:
            return None
        with self._lock:
            return self._remaining.seconds(time.monotonic())


def _note(remaining: Remaining, event: Event, at: float) -> None:
    match event:
        case ExecutionStarted(request=request):
            remaining.begin(request.key.tenant, request.key.job, at)
        case AttemptFailed(result=result):
            remaining.put_off(result.request.key.tenant, result.request.key.job, at)
        case ExecutionFinished(result=result):
            key = result.request.key
            remaining.end(key.tenant, key.job, at, _seconds(result))
        case ClaimRefused(key=key):
            remaining.end(key.tenant, key.job, at, None)
        case _:
            pass


def _seconds(result: Result) -> float | None:
    """Return what an execution has taken; ``None`` if it was left out, or cut off."""
    left_out = result.outcome in {Outcome.SKIPPED, Outcome.INTERRUPTED} and not result.by_job
    return result.duration_seconds if result.attempted and not left_out else None


class _LeftColumn(ProgressColumn):
    """The remaining time, as hours, minutes and seconds."""

    #: Seconds between two looks at it.
    max_refresh = 0.5

    def __init__(self, left: TimeLeft) -> None:
        super().__init__()
        self._left = left

    def render(self, task: Task) -> Text:
        """Write it, or dashes as long as it is not known."""
        del task
        seconds = self._left.seconds()
        text = "-:--:--" if seconds is None else str(timedelta(seconds=round(seconds)))
        return Text(text, style="progress.remaining")
