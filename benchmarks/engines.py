"""What is left of cronrunner without its runner: sessions and engines, and nothing around them.

No claim, deadline, outcome, log line or context. What a run takes beyond this is the runner; what
this takes beyond the driver alone is the price of an engine for each job.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from sqlalchemy import URL, text

from benchmarks.jobs import MANY, STATEMENT, WAIT_SECONDS
from benchmarks.spreading import spread
from cronrunner.affinity import OneCpu
from cronrunner.databases import Endpoint
from cronrunner.engines import Engines
from cronrunner.model import Tenant

_STATEMENT_SECONDS: Final = 60.0


def resetting(url: URL, names: Sequence[str], threads: int) -> None:
    """Pass sessions on from tenant to tenant."""
    _visit(url, names, threads, reuse=True)


def connecting(url: URL, names: Sequence[str], threads: int) -> None:
    """Connect for each tenant."""
    _visit(url, names, threads, reuse=False)


def resetting_for_many(url: URL, names: Sequence[str], threads: int) -> None:
    """Do as much for a tenant as its many jobs do, each with an engine of its own."""
    _visit(url, names, threads, reuse=True, each=MANY)


def waiting(url: URL, names: Sequence[str], threads: int) -> None:
    """Wait for the server in each tenant."""
    _visit(url, names, threads, reuse=True, statement=f"SELECT SLEEP({WAIT_SECONDS})")


def _visit(  # noqa: PLR0913 - what a loop is told, and what differs between these
    url: URL,
    names: Sequence[str],
    threads: int,
    *,
    reuse: bool,
    each: int = 1,
    statement: str = STATEMENT,
) -> None:
    engines = Engines({"main": Endpoint(name="main", url=url, tls="disabled", reuse=reuse)})

    def work(names: Iterator[str]) -> None:
        for name in names:
            visit = engines.visit(Tenant(name=name, server="main", database=name))
            visit.limit_statements(_STATEMENT_SECONDS)
            for job in range(each):
                if job:
                    visit.renew()
                visit.connect()
                with visit.engine.connect() as connection:
                    connection.execute(text(statement)).scalar_one()
                    visit.foresee(more=job < each - 1)
                    connection.commit()
            visit.close(clean=True)

    with OneCpu():
        spread(names, threads, work)
    engines.close()
