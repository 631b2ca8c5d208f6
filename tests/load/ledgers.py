"""A SQLite ledger with a long history, made by the database itself: 5 million executions a minute."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import make_url

from cronrunner.databases import Endpoint
from cronrunner.ledger import open_engine
from cronrunner.ledger.store import Ledger

#: One run a night up to this one.
LAST_NIGHT = datetime(2026, 3, 1, 2, tzinfo=UTC)

_NIGHTS = """
    INSERT INTO runs (run, command, started_at, finished_at, scheduled_at, slot, slot_key, host,
        boot, pid, pid_started, heartbeat_at, lease_until, fleet, selection, planned, duplicates,
        exit_code, discovered, outcomes, errors)
    WITH RECURSIVE nights(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM nights WHERE n < :runs - 1)
    SELECT printf('night-%05d', n), 'cronrunner run', at, at, at, at, key, 'host', 'boot', 1, 1,
        at, at, 1, '{}', :tenants * :jobs, 0, 1, '{}', '{}', '[]'
    FROM (
        SELECT n, strftime('%Y-%m-%d %H:%M:%S.000000', :first, n || ' days') AS at,
            strftime('%Y-%m-%dT%H:%M:%SZ', :first, n || ' days') AS key
        FROM nights
    )
"""
_PAIRS = """
    INSERT INTO pairs
    WITH RECURSIVE
        jobs(j) AS (SELECT 0 UNION ALL SELECT j + 1 FROM jobs WHERE j < :jobs - 1),
        tenants(t) AS (SELECT 0 UNION ALL SELECT t + 1 FROM tenants WHERE t < :tenants - 1)
    SELECT printf('job.%02d', j), printf('agency_%06d', t), t, j, t * :jobs + j
    FROM tenants CROSS JOIN jobs
"""
#: Of a hundred executions one fails and one is skipped; of a thousand one is timed out.
_OUTCOME = """
    CASE WHEN (number * 7919 + r.rowid * 104729) % 1000 = 0 THEN 'timed_out'
        WHEN (number * 7919 + r.rowid * 104729) % 100 = 1 THEN 'failed'
        WHEN (number * 7919 + r.rowid * 104729) % 100 = 2 THEN 'skipped' ELSE 'succeeded' END
"""
_STARTED = "substr(r.started_at, 1, 13) || printf(':%02d:%02d.000000', t / 60 % 60, t % 60)"
_EXECUTIONS = f"""
    INSERT INTO executions (run, job, tenant, server, slot, slot_key, outcome, attempts, fence,
        started_at, duration_seconds, counters, error, cause)
    SELECT r.run, job, tenant, 'main', r.slot, r.slot_key, {_OUTCOME} AS outcome, 1, 1,
        {_STARTED}, 0.05 + t % 10 * 0.01, '{{"rows": 3}}',
        CASE WHEN {_OUTCOME} = 'failed' THEN 'OperationalError 1146: no such table' END,
        CASE WHEN {_OUTCOME} = 'failed' THEN 'OperationalError 1146: no such table' END
    FROM runs AS r CROSS JOIN pairs
"""
_CLAIMS = f"""
    INSERT INTO claims
    SELECT job, tenant, r.slot_key, r.run, 1, 'closed', {_OUTCOME}, r.started_at, r.started_at
    FROM pairs CROSS JOIN runs AS r
"""
_STATISTICS = """
    INSERT INTO statistics (job, tenant, succeeded, failed, timed_out, stuck, skipped, cancelled,
        interrupted, tenant_gone, last_outcome, last_run_at, last_success_at,
        last_duration_seconds, consecutive_failures, smoothed_seconds)
    SELECT job, tenant, :runs, 0, 0, 0, 0, 0, 0, 0, 'succeeded', :last, :last,
        0.05, number % 100 = 1, 0.05 + t % 10 * 0.01
    FROM pairs ORDER BY job, tenant
"""
_TENANTS = "INSERT INTO tenants SELECT 'main', tenant, :last FROM pairs WHERE j = 0"


@dataclass(frozen=True, kw_only=True)
class Past:
    """What has happened: every night each job on each tenant."""

    tenants: int
    jobs: int
    runs: int
    #: Also keep the claims of all of it, as a ledger does until it is pruned.
    claims: bool = True


def fill(path: Path, past: Past) -> None:
    """Make a ledger of this past at ``path``."""
    engine = open_engine(Endpoint(name="ledger", url=make_url(f"sqlite:///{path}")))
    Ledger(engine, clock=lambda: LAST_NIGHT).close()
    given = {
        "tenants": past.tenants,
        "jobs": past.jobs,
        "runs": past.runs,
        "first": f"{LAST_NIGHT - timedelta(days=past.runs - 1):%Y-%m-%d %H:%M:%S}",
        "last": f"{LAST_NIGHT:%Y-%m-%d %H:%M:%S}.000000",
    }
    with closing(sqlite3.connect(path)) as ledger, ledger:
        ledger.execute("PRAGMA synchronous = OFF")
        ledger.execute("CREATE TEMP TABLE pairs (job, tenant, t, j, number)")
        indexes = _drop_indexes(ledger)
        history = [_NIGHTS, _PAIRS, _EXECUTIONS, *([_CLAIMS] if past.claims else [])]
        for statement in (*history, _STATISTICS, _TENANTS):
            ledger.execute(statement, given)
        # At the end they are made in a fraction of the time.
        for sql in indexes:
            ledger.execute(sql)


def _drop_indexes(ledger: sqlite3.Connection) -> list[str]:
    """Drop what indexes there are on the two long tables; return how they were made."""
    found = ledger.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        " AND tbl_name IN ('executions', 'claims')"
    ).fetchall()
    for name, _ in found:
        ledger.execute(f"DROP INDEX {name}")
    return [sql for _, sql in found]
