"""Whether the process behind a run still lives."""

from __future__ import annotations

import os
import socket
from datetime import datetime
from pathlib import Path
from typing import Any, Final

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
#: Position of `starttime` in /proc/PID/stat, counted behind the command's closing parenthesis.
_START_TIME: Final = 19
_DEAD: Final = frozenset({"Z", "X"})


def host() -> str:
    """Return the name of this machine or container."""
    return socket.gethostname()


def boot() -> str:
    """Return what changes with each start of the machine and differs between containers."""
    try:
        boot_id = _BOOT_ID.read_text().strip()
        namespace = os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116 - a link that Path resolves
    except OSError:
        return ""
    return f"{boot_id[:36]}/{namespace}"


def started(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = stat.rpartition(")")[2].split()
    # A killed process whose parent has not looked yet is still listed.
    return 0 if fields[0] in _DEAD else int(fields[_START_TIME])


def is_alive(run: Any, *, now: datetime) -> bool:  # noqa: ANN401 - a row of `runs`
    """Tell whether a run's holder may still be working.

    On the same host and boot the process itself is asked: if it is gone, so is the run.
    """
    lease_until: datetime = run.lease_until
    if lease_until <= now:
        return False
    if run.host == host() and run.boot == boot() and run.boot:
        return started(run.pid) == int(run.pid_started)
    return True
