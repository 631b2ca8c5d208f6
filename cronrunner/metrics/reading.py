"""Readings of the ledger, taken by one thread for all who ask.

Whoever asks waits for a reading that began after the question, so that what a run has just
recorded is in the answer, but only so long: then the last good reading is the answer. A ledger
that hangs holds the reading thread, which is a daemon, and nothing else. Questions that come
while a reading is under way share the next one. When nobody asks, a reading is taken now and
then all the same: how long ago the last good one came to its end is what health is judged by.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from cronrunner.events import Event, Warned
from cronrunner.metrics.families import Given, age, build_info, collect, dropped
from cronrunner.model import LedgerSnapshot

_END: Final = b"# EOF\n"


class Format(Enum):
    """How an answer is written; the value is its content type."""

    TEXT = CONTENT_TYPE_PLAIN_0_0_4
    OPENMETRICS = openmetrics.CONTENT_TYPE_LATEST

    @classmethod
    def accepted(cls, accept: str) -> Format:
        """Choose by the header ``Accept`` of a request."""
        try:
            _, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # a version that is no number
            return cls.TEXT
        return cls.OPENMETRICS if content_type.startswith("application/openmetrics") else cls.TEXT

    def write(self, families: Iterable[Metric]) -> bytes:
        """Write ``families``, without the end that OpenMetrics has."""
        encode = generate_latest if self is Format.TEXT else openmetrics.generate_latest
        return encode(Given(families)).removesuffix(_END)

    @property
    def end(self) -> bytes:
        """What comes after the last family."""
        return b"" if self is Format.TEXT else _END


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the ledger said, and its text in the formats that were asked for so far."""

    #: ``None`` before the first reading.
    snapshot: LedgerSnapshot | None
    texts: Mapping[Format, bytes]
    #: When it came to its end, which may be long after it began.
    ended_at: datetime | None = None

    def idle_seconds(self, now: datetime) -> float:
        """Return for how long nothing was read; infinity when nothing was read yet."""
        if self.ended_at is None:
            return math.inf
        return max((now - self.ended_at).total_seconds(), 0.0)

    def age_seconds(self, now: datetime) -> float:
        """Return how old this is; infinity when nothing was read yet."""
        if self.snapshot is None:
            return math.inf
        return max((now - self.snapshot.taken_at).total_seconds(), 0.0)


class Reader:
    """Takes readings with ``read``, which may fail, be slow, or never return."""

    def __init__(  # noqa: PLR0913 - each has a name of its own
        self,
        read: Callable[[], LedgerSnapshot],
        *,
        series_limit: int,
        emit: Callable[[Event], None],
        describe: Callable[[BaseException], str],
        clock: Callable[[], datetime],
        refresh: timedelta,
    ) -> None:
        self._read = read
        self._clock = clock
        self._refresh_seconds = refresh.total_seconds()
        self._series_limit = series_limit
        self._emit = emit
        self._describe = describe
        self._changed = threading.Condition()
        #: Questions are numbered; those up to ``_answered`` need not wait any more.
        self._asked = 0
        self._answered = 0
        self._stopped = False
        self._reading = Reading(snapshot=None, texts={})
        self._formats = frozenset({Format.TEXT})
        self._failing = False
        self._told = False

    def start(self) -> None:
        """Start the thread; it takes a first reading at once."""
        self._asked += 1
        threading.Thread(target=self._run, name="metrics reader", daemon=True).start()

    def stop(self) -> None:
        """Let the thread end, and nobody wait for it; a reading under way is left behind."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def ask(self, wanted: Format, patience: timedelta) -> Reading:
        """Return a reading that began after this call, or after ``patience`` the last one."""
        with self._changed:
            self._formats |= {wanted}
            self._asked += 1
            number = self._asked
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._stopped or self._answered >= number, patience.total_seconds()
            )
            return self._reading

    def text(self, reading: Reading, wanted: Format, now: datetime) -> bytes:
        """Write ``reading``, with its age."""
        body = reading.texts.get(wanted)
        if body is None:
            body = wanted.write(self._families(reading.snapshot))
        return body + wanted.write([age(reading.age_seconds(now))]) + wanted.end

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._stopped or self._asked > self._answered, self._refresh_seconds
                )
                if self._stopped:
                    return
                number, formats = self._asked, self._formats
            reading = self._take(formats)
            with self._changed:
                self._reading = reading or self._reading
                self._answered = number
                self._changed.notify_all()

    def _take(self, formats: Iterable[Format]) -> Reading | None:
        try:
            snapshot = self._read()
            families = self._families(snapshot)
            texts = {wanted: wanted.write(families) for wanted in formats}
        except Exception as error:  # noqa: BLE001 - whatever the ledger does, the next reading may be good
            if not self._failing:
                self._warn(f"the ledger cannot be read for metrics: {self._describe(error)}")
            self._failing = True
            return None
        self._failing = False
        return Reading(snapshot=snapshot, texts=texts, ended_at=self._clock())

    def _families(self, snapshot: LedgerSnapshot | None) -> list[Metric]:
        if snapshot is None:
            return [build_info()]
        warning = dropped(snapshot, series_limit=self._series_limit)
        if warning is not None and not self._told:
            self._told = True
            self._emit(warning)
        return collect(snapshot, series_limit=self._series_limit)

    def _warn(self, text: str) -> None:
        self._emit(Warned(subject="metrics", text=text))
