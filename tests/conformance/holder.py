"""A runner's ledger in a process of its own: `python holder.py URL RUN TENANTS`.

It opens a run and says `ready`; a line on stdin lets it claim a job's slot on that many tenants,
and it says how many it was granted. At the next line it closes the run; killed before, it dies.
"""

import os
import sys
from datetime import UTC, datetime

from sqlalchemy import make_url

from cronrunner.databases import Endpoint
from cronrunner.ledger import open_engine
from cronrunner.ledger.liveness import boot, host, started
from cronrunner.ledger.store import Ledger
from cronrunner.model import Key, Report, Run, Slot

SLOT = Slot.scheduled(datetime(2026, 3, 1, tzinfo=UTC))


def now() -> datetime:
    return datetime.now(UTC)


def keys(count: int) -> list[Key]:
    return [Key(job="count", tenant=f"t{n:03}", slot_key=SLOT.key) for n in range(count)]


def this_run(name: str) -> Run:
    return Run(
        id=name, command="test", started_at=now(), scheduled_at=SLOT.at, host=host(), boot=boot(),
        pid=os.getpid(), pid_started=started(os.getpid()), slot=SLOT,
    )  # fmt: skip


def report(run: Run) -> Report:
    return Report(
        run=run, finished_at=now(), duration_seconds=1.0, tenants=0, planned=0, outcomes={},
        duplicates=0, held=0, errors=(), causes=(), unwell_tenants=0, slowest=(),
    )  # fmt: skip


def main(url: str, name: str, count: int) -> None:
    ledger = Ledger(open_engine(Endpoint(name="ledger", url=make_url(url))), clock=now)
    run = this_run(name)
    ledger.begin_run(run, fleet=True, selection={})
    print("ready", flush=True)
    sys.stdin.readline()
    claims = ledger.claim(keys(count))
    print(len(claims.granted), len(claims.held), flush=True)
    sys.stdin.readline()
    ledger.finish_run(report(run), discovered={})
    ledger.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
