"""Whether a pair that is quarantined is left out of a run, or probed. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from cronrunner.model import Pair, Reason

#: The part of the time between two probes by which one may be early: runs that are started once
#: a day begin some seconds sooner or later each day.
_EARLY: Final = 0.05


def is_quarantined(pair: Pair, digest: str) -> bool:
    """Tell whether a pair is in quarantine for what the code of its job is now."""
    return pair.quarantined_at is not None and pair.code_digest == digest


def why_left_out(pair: Pair, digest: str, *, at: datetime, probe: timedelta) -> str | None:
    """Return why a pair is set aside in the slot ``at``; ``None`` if it is free or to be probed.

    From slot to slot: the clock says nothing of runs that are made up for.
    """
    since = pair.quarantined_at
    if since is None or not is_quarantined(pair, digest):
        return None
    if at - (pair.probed_at or since) >= probe * (1 - _EARLY):
        return None
    return f"{Reason.QUARANTINED} since {since:%Y-%m-%d %H:%M} UTC"
