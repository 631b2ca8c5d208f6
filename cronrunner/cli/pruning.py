"""``cronrunner prune``: removes old history."""

from __future__ import annotations

from datetime import timedelta

from cronrunner.app.pruning import prune
from cronrunner.cli import documents, rendering
from cronrunner.cli.opening import begin_tidying, open_app
from cronrunner.model import ExitCode


def prune_now(*, keep: timedelta | None, config: str | None, as_json: bool) -> int:
    """Remove what is older than the configuration says, or than ``keep``, and say how much."""
    with open_app(config, checked=False) as app:
        begin_tidying()
        before, rows = prune(app, keep)
    if as_json:
        documents.write({"before": before, "rows": rows})
    else:
        rendering.console().print(f"removed {rows} rows from before {before:%Y-%m-%d %H:%M:%S} UTC")
    return ExitCode.OK
