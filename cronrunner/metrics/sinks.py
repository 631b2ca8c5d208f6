"""Where metrics are delivered at the end of a run.

To add a sink is to add a class here, its setting, its line where a run delivers and a parameter
of the conformance suite. A sink fails by raising ``SinkError`` and takes no longer than its
timeout.
"""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit

from prometheus_client.exposition import (
    default_handler,
    generate_latest,
    push_to_gateway,
)

from cronrunner.errors import CronrunnerError
from cronrunner.events import SinkFailed
from cronrunner.metrics.families import Payload
from cronrunner.model import format_duration

#: A Pushgateway gives every series the ``job`` of the group, whatever it had: our jobs would
#: become one and the push be refused. This is the name Prometheus gives in the same conflict.
PUSHED_JOB_LABEL: Final = "exported_job"


class SinkError(CronrunnerError):
    """Metrics could not be delivered. The operator looks at the receiver."""


class MetricsSink(Protocol):
    """A receiver of metrics."""

    @property
    def name(self) -> str:
        """The kind."""

    def deliver(self, payload: Payload) -> None:
        """Hand over ``payload`` as a whole, in place of what was delivered before.

        Raises ``SinkError``, also when it takes longer than the sink's timeout.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushgateway:
    """Puts one group, so that the series of a tenant that was removed go with the next push."""

    #: ``http://host:9091``, with ``user:password@`` if the gateway asks for them.
    url: str
    timeout: timedelta = timedelta(seconds=10)
    #: The group's value of the label ``job``.
    job: str = "cronrunner"
    name: str = "pushgateway"

    def deliver(self, payload: Payload) -> None:
        """Replace the group."""
        within(self.timeout, partial(self._put, payload))

    def _put(self, payload: Payload) -> None:
        parts = urlsplit(self.url)
        address = parts.netloc.rpartition("@")[2]
        try:
            push_to_gateway(
                parts._replace(netloc=address).geturl(),
                self.job,
                payload.collector(job_label=PUSHED_JOB_LABEL),
                # Longer than anybody waits for it: that is what a failure is to name.
                timeout=2 * self.timeout.total_seconds(),
                handler=partial(_handle, parts.username, parts.password),
            )
        except HTTPError as error:
            with error:
                answer = error.read(200).decode("utf-8", "replace")
            raise SinkError(f"{address} answered {error.code}: {answer}") from None
        except URLError as error:
            raise SinkError(f"{address}: {error.reason}") from None


def _handle(user: str | None, password: str | None, **request: Any) -> Callable[[], None]:  # noqa: ANN401 - prometheus_client's
    if user is not None:
        pair = f"{unquote(user)}:{unquote(password or '')}".encode()
        token = base64.b64encode(pair).decode("ascii")
        request["headers"] = [*request["headers"], ("Authorization", f"Basic {token}")]
    return default_handler(**request)


@dataclass(frozen=True, slots=True, kw_only=True)
class Textfile:
    """Writes a file for the textfile collector of the node exporter, readable by everybody."""

    #: Ends in ``.prom``: the node exporter reads no others.
    path: Path
    timeout: timedelta = timedelta(seconds=10)
    name: str = "textfile"

    def deliver(self, payload: Payload) -> None:
        """Replace the file at once: a reader sees the old contents or the new."""
        within(self.timeout, partial(self._write, payload))

    def _write(self, payload: Payload) -> None:
        text = generate_latest(payload.collector())
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            draft.write_bytes(text)
            # The exporter is another user, whatever the umask of this one.
            draft.chmod(0o644)
            draft.replace(self.path)
        except BaseException:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            raise


def deliver(sinks: Iterable[MetricsSink], payload: Payload) -> Iterator[SinkFailed]:
    """Deliver ``payload`` to all ``sinks``, and yield the event of each that failed."""
    for sink in sinks:
        try:
            sink.deliver(payload)
        except SinkError as error:
            yield SinkFailed(sink=sink.name, error=str(error))


def within(timeout: timedelta, call: Callable[[], None]) -> None:
    """Do ``call``, but do not wait for it longer than ``timeout``.

    What takes longer is left behind in a daemon thread. A socket's own timeout is no such limit:
    it begins anew with each byte, and does not cover the look-up of a name. Raises ``SinkError``
    then and for every error of ``call``.
    """
    failures: list[Exception] = []

    def attempt() -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing was delivered
            failures.append(error)

    thread = threading.Thread(target=attempt, name="metrics sink", daemon=True)
    thread.start()
    thread.join(timeout.total_seconds())
    if thread.is_alive():
        raise SinkError(f"not delivered within {format_duration(timeout)}")
    for failure in failures:
        if isinstance(failure, SinkError):
            raise failure
        raise SinkError(f"{type(failure).__name__}: {failure}") from failure
