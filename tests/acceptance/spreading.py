"""What tests of runs with several processes have in common."""

from pathlib import Path
from typing import Any

from tests.acceptance.fleet import Fleet
from tests.acceptance.small import SLOT, small
from tests.servers import MariaDB

AT = ("run", "--json", "--scheduled-at", SLOT)
RUNNER = {"processes": 2, "concurrency": 4, "heartbeat": "200ms", "lease": "20s"}

#: The processes of a run write who they are, and a name of their own for each execution.
WHO = """
    import os
    import time
    from datetime import timedelta
    from pathlib import Path

    from cronrunner import Retry

    def note(ctx, name):
        with Path(f"{name}.log").open("a") as log:
            log.write(f"{ctx.tenant.name} {os.getpid()}\\n")
"""


def noted(fleet: Fleet, name: str) -> list[tuple[str, int]]:
    """Read what jobs have noted: tenant and process."""
    path = fleet.folder / f"{name}.log"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(line.split()[0], int(line.split()[1])) for line in lines]


def spread(folder: Path, jobs: str, *, tenants: int = 8, **runner: Any) -> Fleet:
    return small(folder, WHO + jobs, tenants=tenants, runner=RUNNER | runner)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def on_mariadb(
    folder: Path, mariadb: MariaDB, prefix: str, jobs: str, *, tenants: int, **server: Any
) -> Fleet:
    mariadb.create_databases(
        [f"{prefix}{number:02}" for number in range(tenants)],
        "CREATE TABLE items (id INT)",
        "INSERT INTO items VALUES (1)",
    )
    main = {"url": mariadb.url(database=""), "discover": {"databases": f"{prefix}*"}}
    config = {
        "servers": {"main": main | server},
        "runner": {"processes": 2, "grace": "5s"},
        "metrics": {"textfile": "metrics.prom"},
    }
    return Fleet(folder, config, {"jobs": jobs})
