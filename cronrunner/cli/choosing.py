"""The tenants that a command is about."""

from __future__ import annotations

from typing import Any

from cronrunner.app import App
from cronrunner.cli import rendering
from cronrunner.model import ExitCode, Tenant
from cronrunner.planning import Selection
from cronrunner.runner.texts import shrink_text


def selection_of(asked: dict[str, Any]) -> Selection:
    """Return what the options that choose tenants say."""
    return Selection(
        jobs=asked.get("jobs", ()),
        tenants=asked["tenants"],
        exclude_tenants=asked["excluded"],
        labels=dict(asked["labels"]),
        servers=asked["servers"],
        shard=asked["shard"],
    )


def discover(app: App, selection: Selection, *, compared: bool = True) -> tuple[list[Tenant], int]:
    """Return the tenants, and the exit code: what is wrong with discovery goes to stderr.

    They are ``compared`` with what was found before, for which the ledger is read.
    """
    tenants: list[Tenant] = []
    code = ExitCode.OK
    for source in app.discover(selection):
        for reason in source.refused:
            rendering.complain(f"server {source.server}: not a tenant: {reason}")
        if source.failure is not None:
            code = ExitCode.DISCOVERY
            error = app.redactor.text(str(source.error))
            rendering.complain(f"server {source.server}: discovery failed: {error}")
        elif compared and (shrink := app.shrink(source)) is not None:
            code = ExitCode.DISCOVERY
            rendering.complain(shrink_text(shrink))
        tenants += source.tenants
    return tenants, code
