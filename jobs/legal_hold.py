"""Tenants of which nothing may be removed for now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cronrunner import Skip

if TYPE_CHECKING:
    from cronrunner import JobContext


def respect_legal_hold(ctx: JobContext) -> None:
    """Skip a tenant that is labelled ``legal_hold: "true"``."""
    if ctx.tenant.labels.get("legal_hold") == "true":
        raise Skip("legal hold")
