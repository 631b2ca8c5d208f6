"""``cronrunner serve``: /metrics and /health from the ledger, for containers that are gone."""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack

import click

from cronrunner import logs
from cronrunner.cli.opening import begin_tidying, open_app
from cronrunner.errors import ConfigError, Problem
from cronrunner.events import Dispatcher
from cronrunner.model import ExitCode


def serve_metrics(config: str | None, host: str, port: int) -> int:
    """Serve until SIGTERM or SIGINT."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    with open_app(config) as app, ExitStack() as stack:
        begin_tidying()
        events = Dispatcher([logs.LogListener()])
        try:
            server = stack.enter_context(app.serving(host, port, events))
        except OSError as error:
            text = f"expected a free port, got {error.strerror} on {host}:{port}; give another"
            raise ConfigError([Problem(text=text)]) from error
        click.echo(f"serving http://{host}:{server.port}/metrics and /health", err=True)
        stopped.wait()
    return ExitCode.OK
