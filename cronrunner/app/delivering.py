"""A run's metrics, brought to where they are wanted; none of it can fail the run or hold it up."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from cronrunner.databases import describe
from cronrunner.errors import LedgerError
from cronrunner.events import Dispatcher, Warned
from cronrunner.metrics.listener import MetricsListener

if TYPE_CHECKING:
    from cronrunner.app import App
    from cronrunner.metrics.sinks import MetricsSink


class Delivery:
    """The metrics of one run: served while it lasts, kept and delivered at its end."""

    def __init__(self, app: App, events: Dispatcher, counting: MetricsListener) -> None:
        """``counting`` has heard the run's events."""
        self._app = app
        self._events = events
        self._counting = counting

    def serve(self, stack: ExitStack, *, port: int | None) -> None:
        """Serve as long as ``stack`` lasts; a port that is taken is no reason not to run."""
        metrics = self._app.settings.metrics
        port = metrics.port if port is None else port
        if port is None:
            return
        try:
            stack.enter_context(self._app.serving(metrics.host, port, self._events))
        except OSError as error:
            self._warn(
                f"/metrics is not served on {metrics.host}:{port}: {error.strerror or error}"
            )

    def keep(self) -> None:
        """Keep what only events know; the run is recorded, and losing a count is a warning."""
        try:
            self._app.ledger.add_counters(self._counting.drain(), self._counting.states())
        except LedgerError as error:
            self._warn(str(error))

    def deliver(self) -> None:
        """Bring the metrics to the configured sinks."""
        metrics = self._app.settings.metrics
        if metrics.pushgateway is None and metrics.textfile is None:
            return
        from cronrunner.metrics import sinks  # noqa: PLC0415 - a run without sinks does not pay
        from cronrunner.metrics.families import Payload, dropped  # noqa: PLC0415 - as above

        try:
            snapshot = self._app.snapshot()
        except (LedgerError, SQLAlchemyError) as error:
            self._warn(f"metrics are not delivered: {self._app.redactor.text(describe(error))}")
            return
        if warning := dropped(snapshot, series_limit=metrics.series_limit):
            self._events.emit(warning)
        payload = Payload(snapshot=snapshot, series_limit=metrics.series_limit)
        for failed in sinks.deliver(self._sinks(), payload):
            self._events.emit(replace(failed, error=self._app.redactor.text(failed.error)))

    def _sinks(self) -> list[MetricsSink]:
        from cronrunner.metrics.sinks import Pushgateway, Textfile  # noqa: PLC0415 - as above

        metrics = self._app.settings.metrics
        wanted: list[MetricsSink] = []
        if metrics.pushgateway is not None:
            url, group = metrics.pushgateway.reveal(), metrics.pushgateway_job
            wanted.append(Pushgateway(url=url, timeout=metrics.timeout, job=group))
        if metrics.textfile is not None:
            path = self._app.settings.folder / metrics.textfile
            wanted.append(Textfile(path=path, timeout=metrics.timeout))
        return wanted

    def _warn(self, text: str) -> None:
        self._events.emit(Warned(subject="metrics", text=text))
