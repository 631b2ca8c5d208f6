"""Errors that belong to a run and to no execution, as they are told."""

from __future__ import annotations

from typing import Final

from cronrunner.model import Shrink, Spooled

#: Missing tenants named in an error.
_NAMED: Final = 10


def spooled_text(spooled: Spooled) -> str:
    text = f"{spooled.outcomes} outcomes are in {spooled.path}, which the next command imports"
    return f"{text}; {spooled.lost} had no room there and are lost" if spooled.lost else text


def shrink_text(shrink: Shrink) -> str:
    named = ", ".join(shrink.missing[:_NAMED])
    more = f" and {len(shrink.missing) - _NAMED} more" if len(shrink.missing) > _NAMED else ""
    return (
        f"server {shrink.server}: found {shrink.found} of {shrink.accepted} tenants; missing are"
        f" {named}{more}; if they are gone for good, run once with --accept-shrink"
    )
