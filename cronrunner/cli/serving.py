"""``cronrunner serve``: /metrics and /health from the ledger, for containers that are gone."""

from __future__ import annotations

import signal
import threading

import click

from cronrunner import logs
from cronrunner.cli.opening import open_app
from cronrunner.events import Dispatcher
from cronrunner.model import ExitCode


def serve_metrics(config: str | None, host: str, port: int) -> int:
    """Serve until SIGTERM or SIGINT."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    with (
        open_app(config) as app,
        app.serving(host, port, Dispatcher([logs.LogListener()])) as server,
    ):
        click.echo(f"serving http://{host}:{server.port}/metrics and /health", err=True)
        stopped.wait()
    return ExitCode.OK
