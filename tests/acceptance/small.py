"""A small fleet of SQLite files, whose jobs leave rows behind that can be counted."""

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.acceptance.fleet import Fleet

SLOT = "2026-03-01T02:00:00Z"

#: The document of a run has these keys at every exit code.
KEYS = {
    "schema", "run", "scheduled_at", "exit_code", "duration_seconds", "tenants", "outcomes",
    "duplicates", "errors", "causes", "executions",
}  # fmt: skip
EXECUTION_KEYS = {
    "job", "tenant", "server", "slot", "outcome", "reason", "error", "attempts", "started_at",
    "duration_seconds", "counters", "note",
}  # fmt: skip

#: Leaves a row of its own each time it is executed.
COUNTING = """
    @job
    def work(ctx):
        ctx.execute("INSERT INTO done VALUES ('work', :slot)")
        return {"rows": 1}
"""

#: Begins, says so by a file, and waits for a file to go on.
WAITING = """
    import time
    from pathlib import Path

    @job
    def work(ctx):
        Path(f"began-{ctx.tenant.name}").touch()
        while not Path("go").exists() and ctx.remaining():
            time.sleep(0.005)
        ctx.execute("INSERT INTO done VALUES ('work', :slot)")
"""

#: As ``WAITING`` in ``began`` and ``go``, and does not care for anything else.
STUBBORN = """
    import time
    from pathlib import Path

    @job
    def work(ctx):
        Path(f"began-{ctx.tenant.name}").touch()
        time.sleep(60)
"""


def small(
    folder: Path,
    jobs: Mapping[str, str] | str = COUNTING,
    *,
    tenants: int = 3,
    zones: Mapping[str, str] | None = None,
    **config: Any,
) -> Fleet:
    """Make the fleet: tenants ``t0``, ``t1`` and so on, each with an empty table ``done``."""
    (folder / "tenants").mkdir()
    for n in range(tenants):
        with closing(sqlite3.connect(folder / "tenants" / f"t{n}.db")) as tenant:
            tenant.execute("CREATE TABLE done (job TEXT, slot TEXT)")
            tenant.commit()
    files = {"jobs": jobs} if isinstance(jobs, str) else jobs
    settings: dict[str, Any] = {
        "servers": {"files": {"url": "sqlite://", "discover": {"directory": "tenants"}}},
        "runner": {"concurrency": 2, "heartbeat": "200ms", "lease": "20s"},
    }
    if zones:
        settings["tenants"] = {name: {"timezone": zone} for name, zone in zones.items()}
    return Fleet(folder, settings | config, files)


def written(fleet: Fleet) -> Counter[str]:
    """Count the rows that jobs have left: tenant -> rows."""
    found: Counter[str] = Counter()
    for path in sorted((fleet.folder / "tenants").glob("*.db")):
        with closing(sqlite3.connect(path)) as tenant:
            found[path.stem] = tenant.execute("SELECT count(*) FROM done").fetchone()[0]
    return found


def until(happened: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait until something has happened; fail if it does not."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def began(fleet: Fleet) -> set[str]:
    """Return the tenants on which a waiting job has begun."""
    return {path.name.removeprefix("began-") for path in fleet.folder.glob("began-*")}


def go(fleet: Fleet) -> None:
    """Let the waiting jobs go on."""
    (fleet.folder / "go").touch()


def moment(text: str) -> datetime:
    """Read a time of a document."""
    return datetime.fromisoformat(text).astimezone(UTC)
