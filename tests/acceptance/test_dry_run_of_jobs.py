"""`--dry-run` of the shipped jobs, on the demo's data."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from demo.configuration import job_options
from demo.files import Places, make_files
from demo.planting import plant, scene_of
from demo.stores import MariaStore, SqliteStore, Store
from demo.tenants import fleet as demo_fleet
from tests.acceptance.dry_runs import AT, DRY, Content, changes, ledger_rows, rows_on
from tests.acceptance.fleet import ROOT, Fleet


def shipped(folder: Path, store: Store, server: dict[str, Any], prefix: str) -> Fleet:
    tenants = [replace(tenant, name=prefix + tenant.name) for tenant in demo_fleet(2, {})]
    at, places = datetime(2026, 3, 1, tzinfo=UTC), Places(folder)
    make_files(places, [scene_of(tenant, seed=1, at=at) for tenant in tenants], at)
    for _ in plant(_Quiet(store), tenants, seed=1, at=at):
        pass
    config = {
        "ledger": "sqlite:///var/ledger.db",
        "job_folder": os.path.relpath(ROOT / "jobs", folder),
        "servers": {"demo": server},
        "jobs": {job: {"options": options} for job, options in job_options(places).items()},
    }
    return Fleet(folder, config, {})


class _Quiet:
    """A store without the databases that are no tenants."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def add_strangers(self) -> None:
        pass


@pytest.fixture(params=["sqlite", "mariadb"])
def demo(
    request: pytest.FixtureRequest, tmp_path: Path, prefix: str
) -> tuple[Fleet, Callable[[], Content]]:
    """Make a fleet with the shipped jobs; and a function that reads all of its tenants."""
    if request.param == "sqlite":
        server = {"url": "sqlite://", "discover": {"directory": "tenants"}}
        made = shipped(tmp_path, SqliteStore(tmp_path / "tenants"), server, prefix)
        return made, lambda: {p.name: dump(p) for p in (tmp_path / "tenants").glob("*.db")}
    mariadb = request.getfixturevalue("mariadb")
    url = mariadb.url(database="")
    server = {"url": url, "discover": {"databases": f"{prefix}*"}}
    made = shipped(tmp_path, MariaStore(make_url(url)), server, prefix)
    return made, lambda: rows_on(mariadb, prefix)


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as tenant:
        return list(tenant.iterdump())


#: They commit for themselves, or work on files: they are not run dry.
NOT_DRY = {
    "comms.deliver", "comms.deliver_fleet", "maintenance.optimize_tables",
    "maintenance.rotate_logs",
}  # fmt: skip

#: They look at what others have written before them in the same run.
DEPENDENT = {
    "notifications.dispatch", "operations.health_check", "reports.overnight",
    "reports.update_dashboard", "retention.apply_policies",
}  # fmt: skip

#: Job, and the counters whose sum is the number of rows that are changed.
ROWS = {
    "cleanup.rate_limits": ["deleted"],
    "cleanup.sessions": ["deleted"],
    "cleanup.tokens": ["expired", "used"],
    "compliance.overdue_actions": ["flagged", "notified"],
    "exchanges.auto_complete": ["completed"],
    "reports.aggregate_metrics": ["written", "updated"],
    "reports.update_dashboard": ["tiles"],
}


def test_the_shipped_jobs_say_what_they_would_do_and_do_it_only_in_earnest(
    demo: tuple[Fleet, Callable[[], Content]],
) -> None:
    fleet, content = demo
    before = content()
    dry = fleet.run(*DRY, *AT)
    after = content()
    ledger = ledger_rows(fleet)
    real = fleet.run("run", "--json", *AT)

    assert (dry.code, real.code) == (0, 0), dry.stderr
    assert before
    assert after == before
    assert [name for name, rows in ledger.items() if rows and name != "alembic_version"] == []
    assert {job for (job, _), outcome in dry.outcomes.items() if outcome == "skipped"} == NOT_DRY
    assert set(real.outcomes.values()) == {"succeeded"}
    assert content() != before
    said, done = changes(dry), changes(real)
    same = {job for job, _ in said} - NOT_DRY - DEPENDENT
    assert len(same) > 20
    for key in said:
        if key[0] in same:
            assert said[key] == done[key], key
    rows = {(row["job"], row["tenant"]): row["rows_changed"] for row in dry.document["executions"]}
    for (job, tenant), number in rows.items():
        if job in ROWS:
            assert number == sum(said[job, tenant][name] for name in ROWS[job]), job
    assert sum(rows.values()) > 0
