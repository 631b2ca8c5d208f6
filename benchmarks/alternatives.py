"""What would be run on a fleet without cronrunner, one statement for each tenant."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import clientlib
from benchmarks.fleet import Fleet
from benchmarks.ways import Way, command_line, loop, queue

#: Keys of what cronrunner is compared with.
CLASSIC, RAW_POOL = "classic 1", "raw 8"
CELERY = ("celery prefork", "celery threads")
#: Tenants for the slowest ways, which take 20 ms and more for each: their rates do not differ.
_SAMPLE = 100
_EIGHT = "the same, 8 threads"
_CONNECTING = "raw PyMySQL, connect per tenant"
_RESETTING = "raw PyMySQL, one connection, COM_RESET_CONNECTION + COM_INIT_DB"


def essential(fleet: Fleet) -> list[Way]:
    """Return the two that everything is compared with."""
    tenants = len(fleet.tenants)
    return [
        loop("classic", "the classic loop", fleet, tenants=min(tenants, _SAMPLE)),
        loop("raw", f"{_CONNECTING}, 8 threads", fleet, tenants=tenants, threads=8),
    ]


def every(fleet: Fleet, broker: str | None) -> list[Way]:
    """Return all of them; the raw pool is last, next to what it is compared with."""
    classic, raw_pool = essential(fleet)
    queues = _queues(fleet, broker)
    return [classic, *_alchemy(fleet), *_programs(fleet), *queues, *_raw(fleet), raw_pool]


def _alchemy(fleet: Fleet) -> Iterator[Way]:
    tenants = len(fleet.tenants)
    few, some = min(tenants, 2 * _SAMPLE), min(tenants, 10 * _SAMPLE)
    nullpool, dialect = "NullPool and `ssl_disabled`", "engine per tenant over one shared dialect"
    yield loop("classic", _EIGHT, fleet, tenants=few, threads=8)
    yield loop("nullpool", nullpool, fleet, tenants=some)
    yield loop("nullpool", _EIGHT, fleet, tenants=some, threads=8)
    yield loop("dialect", dialect, fleet, tenants=tenants)
    yield loop("dialect", _EIGHT, fleet, tenants=tenants, threads=8)


def _programs(fleet: Fleet) -> Iterator[Way]:
    tenants = len(fleet.tenants)
    absent = "" if clientlib.is_there() else "not installed"
    name = "C client library, connect per tenant"
    yield command_line(fleet, tenants=min(tenants, 4 * _SAMPLE), processes=8)
    yield loop("client", name, fleet, tenants=tenants, absent=absent)
    yield loop("client", "the same, 4 threads", fleet, tenants=tenants, threads=4, absent=absent)


def _queues(fleet: Fleet, broker: str | None) -> Iterator[Way]:
    name = "Celery on Redis, one message per tenant"
    yield queue("prefork", f"{name}, prefork 2", fleet, broker, workers=2)
    yield queue("threads", "the same, threads 8", fleet, broker, workers=8)


def _raw(fleet: Fleet) -> Iterator[Way]:
    tenants = len(fleet.tenants)
    forked, pipelined = (
        f"{_CONNECTING}, 2 processes x 4 threads",
        "the same, pipelined in one write",
    )
    yield loop("raw-reset", _RESETTING, fleet, tenants=tenants)
    yield loop("raw-reset", _EIGHT, fleet, tenants=tenants, threads=8)
    yield loop("raw-pipelined", f"{pipelined}, 1 thread", fleet, tenants=tenants)
    yield loop("raw", f"{_CONNECTING}, 1 thread", fleet, tenants=tenants)
    yield loop("raw-forked", forked, fleet, tenants=tenants, threads=4)
