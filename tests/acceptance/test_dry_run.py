"""`--dry-run`: it says what a run would change, and changes nothing."""

import os
import sqlite3
from collections.abc import Callable, Iterable
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
from tests.acceptance.fleet import ROOT, Finished, Fleet, finish
from tests.acceptance.small import (
    EXECUTION_KEYS,
    KEYS,
    SLOT,
    WAITING,
    began,
    go,
    small,
    until,
    written,
)
from tests.servers import MariaDB, quote

AT = ("--scheduled-at", SLOT)
DRY = ("run", "--dry-run", "--json")

Content = dict[str, Any]


def ledger_rows(fleet: Fleet) -> dict[str, list[tuple[Any, ...]]]:
    """Return what the ledger holds, but for runs."""
    tables = [
        name for (name,) in fleet.query("SELECT name FROM sqlite_master WHERE type = 'table'")
    ]
    assert {"claims", "executions", "attempts", "statistics", "tenants", "prepared"} <= set(tables)
    return {name: fleet.query(f"SELECT * FROM {name}") for name in tables if name != "runs"}


def bytes_of(fleet: Fleet) -> dict[str, bytes]:
    """Return the files of the tenants."""
    return {path.name: path.read_bytes() for path in (fleet.folder / "tenants").glob("*.db")}


# The shipped jobs, on the demo's data.


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


def rows_on(mariadb: MariaDB, prefix: str) -> Content:
    find = (
        "SELECT table_schema, table_name FROM information_schema.tables"
        f" WHERE table_schema LIKE '{prefix}%' ORDER BY 1, 2"
    )
    return {
        f"{database}.{table}": sorted(
            map(repr, mariadb.execute(f"SELECT * FROM {quote(database)}.{quote(table)}"))
        )
        for database, table in mariadb.execute(find)
    }


def changes(finished: Finished) -> dict[tuple[str, str], dict[str, int]]:
    rows = finished.document["executions"]
    return {(row["job"], row["tenant"]): row["counters"] for row in rows}


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


# What is written, and what is not.


def test_the_ledger_has_one_more_run_and_nothing_else(tmp_path: Path) -> None:
    fleet = small(tmp_path)
    fleet.run("run", *AT)
    before, tenants = ledger_rows(fleet), bytes_of(fleet)
    dry = fleet.run(*DRY)

    assert dry.code == 0
    assert ledger_rows(fleet) == before
    assert bytes_of(fleet) == tenants
    assert len(fleet.query("SELECT run FROM runs")) == 2
    (row,) = fleet.query(
        "SELECT command, fleet, exit_code, finished_at FROM runs WHERE run = ?",
        dry.document["run"],
    )
    assert "--dry-run" in row[0]
    assert row[1:3] == (0, 0)
    assert row[3] is not None


def test_the_document_has_its_keys_and_says_that_it_was_dry(tmp_path: Path) -> None:
    finished = small(tmp_path).run(*DRY, *AT)

    assert set(finished.document) == KEYS | {"dry_run"}
    assert finished.document["dry_run"] is True
    assert {frozenset(row) for row in finished.document["executions"]} == {
        frozenset(EXECUTION_KEYS | {"rows_changed"})
    }
    row = finished.execution("jobs.work", "t1")
    assert (row["counters"], row["rows_changed"], row["slot"]) == ({"rows": 1}, 1, SLOT)


def test_a_slot_that_was_run_dry_is_not_done(tmp_path: Path) -> None:
    fleet = small(tmp_path)
    dry = fleet.run(*DRY, *AT)
    real = fleet.run("run", "--json", *AT)
    again = fleet.run(*DRY, *AT)
    repeated = fleet.run(*DRY, *AT, "--again")

    assert dry.document["outcomes"] == real.document["outcomes"] == {"succeeded": 3}
    assert again.document["duplicates"] == 3
    assert repeated.document["outcomes"] == {"succeeded": 3}
    assert written(fleet) == {"t0": 1, "t1": 1, "t2": 1}


def test_the_summary_says_what_would_have_changed_and_that_nothing_did(tmp_path: Path) -> None:
    summary = small(tmp_path).run("run", "--dry-run").stdout

    assert summary.startswith("dry run ")
    (row,) = [line.split() for line in summary.splitlines() if line.startswith("jobs.work")]
    assert row == ["jobs.work", "3", "3", "rows=3"]
    assert summary.endswith("dry run: everything was rolled back and nothing was changed\n")
    assert "cronrunner show" not in summary


def test_metrics_go_nowhere_and_know_nothing_of_it(tmp_path: Path) -> None:
    fleet = small(tmp_path, metrics={"textfile": "metrics.prom"})
    dry = fleet.run(*DRY)
    assert not (tmp_path / "metrics.prom").exists()
    fleet.run("run")

    assert dry.log_lines("run.started")[0]["cronrunner"]["dry_run"] is True
    assert "cronrunner_job_executions_total" in (tmp_path / "metrics.prom").read_text()


@pytest.mark.parametrize("option", ["--resume", "--only-failed"])
def test_last_is_no_dry_run_and_none_can_be_repeated(tmp_path: Path, option: str) -> None:
    fleet = small(tmp_path)
    real = fleet.run("run", "--json").document["run"]
    dry = fleet.run(*DRY).document["run"]
    refused = fleet.run("run", option, dry)
    last = fleet.run("run", "--json", option, "last")

    assert refused.code == 2
    assert "was a dry run" in refused.stderr
    assert last.code == 0
    assert fleet.run("show", "last").stdout.split()[1] != dry
    assert [row for (row,) in fleet.query("SELECT slot_key FROM runs WHERE run = ?", real)] == [
        row
        for (row,) in fleet.query("SELECT slot_key FROM runs WHERE run = ?", last.document["run"])
    ]


def test_only_failed_shows_what_the_repetition_would_do(tmp_path: Path) -> None:
    fleet = small(
        tmp_path,
        """
        from pathlib import Path

        @job
        def work(ctx):
            if ctx.tenant.name == "t1" and not Path("mended").exists():
                raise ValueError("broken")
            ctx.execute("INSERT INTO done VALUES ('work', :slot)")
        """,
    )
    assert fleet.run("run").code == 1
    (tmp_path / "mended").touch()
    dry = fleet.run(*DRY, "--only-failed", "last")
    real = fleet.run("run", "--json", "--only-failed", "last")

    assert dry.outcomes == real.outcomes == {("jobs.work", "t1"): "succeeded"}
    assert written(fleet) == {"t0": 1, "t1": 1, "t2": 1}


def test_resume_shows_what_was_left(tmp_path: Path) -> None:
    fleet = small(tmp_path, WAITING, runner={"concurrency": 1, "grace": "5s"})
    with fleet.started("run", *AT) as process:
        until(lambda: began(fleet))
        process.terminate()
        go(fleet)
        assert finish(process).code == 75
    left = 3 - sum(written(fleet).values())
    dry = fleet.run(*DRY, "--resume", "last")

    assert dry.document["outcomes"] == {"succeeded": left}
    assert 3 - sum(written(fleet).values()) == left


def test_what_a_dead_run_left_is_for_a_real_run_to_record(tmp_path: Path) -> None:
    fleet = small(tmp_path, WAITING)
    with fleet.started("run", *AT) as process:
        until(lambda: began(fleet))
        process.kill()
        process.wait()
    go(fleet)
    before = ledger_rows(fleet)
    assert before["claims"]
    dry = fleet.run(*DRY, *AT)

    assert dry.document["outcomes"] == {"succeeded": 3}
    assert ledger_rows(fleet) == before


def test_a_shrunk_fleet_is_reported_and_not_accepted(tmp_path: Path) -> None:
    fleet = small(tmp_path, tenants=8)
    fleet.run("run")
    for name in ("t5", "t6", "t7"):
        (tmp_path / "tenants" / f"{name}.db").unlink()

    assert fleet.run(*DRY).code == 4
    assert fleet.run(*DRY, "--accept-shrink").code == 0
    assert fleet.run("run", "--json").code == 4


# Hooks, attempts, failures.


def test_prepare_runs_its_value_is_kept_nowhere_and_summarize_does_not_run(tmp_path: Path) -> None:
    fleet = small(
        tmp_path,
        """
        def before(ctx):
            assert ctx.dry_run
            return 7

        def after(ctx):
            return {"summed": 1}

        @job(prepare=before, summarize=after)
        def work(ctx):
            return {"value": ctx.prepared}
        """,
    )
    dry = fleet.run(*DRY, *AT)

    assert dry.code == 0
    assert set(dry.outcomes) == {
        ("jobs.work:prepare", ""),
        *(("jobs.work", name) for name in ("t0", "t1", "t2")),
    }
    assert dry.execution("jobs.work", "t0")["counters"] == {"value": 7}
    assert fleet.query("SELECT * FROM prepared") == []


def test_failures_retries_and_deadlines_are_those_of_a_real_run(tmp_path: Path) -> None:
    fleet = small(
        tmp_path,
        """
        import time
        from datetime import timedelta
        from cronrunner import Retry

        @job(timeout="1s", retries=1)
        def work(ctx):
            ctx.execute("INSERT INTO done VALUES ('work', :slot)")
            match ctx.tenant.name:
                case "t0" if ctx.attempt == 1:
                    raise Retry("once more", after=timedelta(0))
                case "t1":
                    raise ValueError("broken")
                case "t2":
                    while True:
                        ctx.execute("SELECT 1")
                        ctx.check()
        """,
    )
    dry = fleet.run(*DRY)

    assert dry.code == 1
    assert {tenant: outcome for (_, tenant), outcome in dry.outcomes.items()} == {
        "t0": "succeeded", "t1": "failed", "t2": "timed_out",
    }  # fmt: skip
    assert dry.execution("jobs.work", "t0")["attempts"] == 2
    assert dry.execution("jobs.work", "t1")["rows_changed"] == 0
    assert sum(written(fleet).values()) == 0


def test_rows_are_counted_as_they_would_stay(tmp_path: Path) -> None:
    fleet = small(
        tmp_path,
        """
        from sqlalchemy import column, insert, table

        @job
        def work(ctx):
            done = table("done", column("job"), column("slot"))
            ctx.connection.execute(text("INSERT INTO done VALUES ('lost', 'x')"))
            ctx.connection.rollback()
            ctx.connection.execute(insert(done), [{"job": str(n), "slot": "x"} for n in range(1500)])
            inner = ctx.connection.begin_nested()
            ctx.connection.execute(text("DELETE FROM done"))
            inner.rollback()
            with ctx.connection.begin_nested():
                ctx.connection.execute(text("-- why\\nUPDATE done SET slot = 'y' WHERE job = '1'"))
            ctx.connection.execute(text("INSERT INTO done VALUES ('a', 'x') RETURNING job")).all()
            ctx.connection.execute(text("SELECT * FROM done")).all()
            return {"dry": int(ctx.dry_run)}
        """,
        tenants=1,
    )
    row = fleet.run(*DRY).execution("jobs.work", "t0")
    real = fleet.run("run", "--json").execution("jobs.work", "t0")

    assert (row["rows_changed"], row["counters"]) == (1502, {"dry": 1})
    assert real["counters"] == {"dry": 0}
    assert "rows_changed" not in real
    assert written(fleet) == {"t0": 1501}


def test_ddl_is_rolled_back_where_it_is_part_of_the_transaction(tmp_path: Path) -> None:
    ddl = "@job\ndef work(ctx):\n    ctx.execute('CREATE TABLE more (n INT)')\n"
    fleet = small(tmp_path, ddl)
    before = bytes_of(fleet)

    assert fleet.run(*DRY).code == 0
    assert bytes_of(fleet) == before


# What is refused.

REFUSED = """
    @job(transaction="none")
    def commits(ctx):
        ctx.execute("INSERT INTO done VALUES ('commits', :slot)")
        ctx.connection.commit()

    @job(effects="external")
    def mails(ctx):
        open("sent", "w").close()

    @job(scope="fleet", effects="repeatable")
    def calls(ctx):
        open("sent", "w").close()

    @job
    def work(ctx):
        return {"rows": 0}
"""


def test_what_cannot_be_rolled_back_is_skipped_and_the_run_goes_on(tmp_path: Path) -> None:
    fleet = small(tmp_path, {"jobs": REFUSED, "mail.sql": "-- effects: external\nSELECT 1"})
    before = bytes_of(fleet)
    dry = fleet.run(*DRY)

    assert dry.code == 0
    assert dry.document["outcomes"] == {"succeeded": 3, "skipped": 10}
    assert dry.execution("jobs.mails", "t0")["reason"] == (
        "dry run: it declares effects outside of the database"
    )
    assert dry.execution("jobs.calls", "")["outcome"] == "skipped"
    assert dry.execution("mail", "t0")["outcome"] == "skipped"
    assert dry.execution("jobs.commits", "t2")["reason"] == (
        'dry run: it commits for itself (transaction="none")'
    )
    warned = [line["message"] for line in dry.log_lines("warned")]
    assert len([text for text in warned if text.startswith("dry run: job ")]) == 4
    assert bytes_of(fleet) == before
    assert not (tmp_path / "sent").exists()
    assert "jobs.mails was not run: dry run: it declares" in fleet.run("run", "--dry-run").stdout


def test_jobs_that_were_named_and_are_all_refused_are_a_mistake(tmp_path: Path) -> None:
    fleet = small(tmp_path, REFUSED)
    refused = fleet.run(*DRY, "mails", "commits")

    assert refused.code == 2
    assert [text.split(":")[1] for text in refused.document["errors"]] == [
        " job jobs.mails is not run",
        " job jobs.commits is not run",
    ]
    assert refused.stderr.count("run it without --dry-run, or name other jobs") == 2
    # Nor is it run because something else is named as well; a glob takes what it can.
    assert fleet.run(*DRY, "mails", "work").code == 2
    assert fleet.run(*DRY, "jobs.*").code == 0


ENDINGS = {
    "commit": ("ctx.connection.commit()", "the job commits"),
    "caught": (
        "\n    try:\n        ctx.connection.commit()\n    except Exception:\n        pass",
        "the job commits",
    ),
    "text": ("ctx.execute('/* now */ COMMIT')", "COMMIT ends the transaction"),
    "rollback": ("ctx.connection.exec_driver_sql('ROLLBACK')", "ROLLBACK ends the transaction"),
    "engine": ("ctx.engine", "ctx.engine is committed by whoever uses it"),
    "autocommit": (
        (
            "ctx.connection.rollback()\n    on = ctx.connection.execution_options"
            "(isolation_level='AUTOCOMMIT')\n    on.execute(text('DELETE FROM done'))"
        ),
        "autocommit leaves nothing to roll back",
    ),
}


@pytest.mark.parametrize(("statement", "said"), ENDINGS.values(), ids=ENDINGS)
def test_a_job_that_would_commit_fails_and_has_changed_nothing(
    tmp_path: Path, statement: str, said: str
) -> None:
    insert = "ctx.execute(\"INSERT INTO done VALUES ('a', 'x')\")"
    first = "" if statement == "ctx.engine" else f"    {insert}\n"
    fleet = small(tmp_path, f"@job\ndef work(ctx):\n{first}    {statement}\n    {insert}\n")
    before = bytes_of(fleet)
    dry = fleet.run(*DRY)

    assert dry.code == 1
    assert dry.document["outcomes"] == {"failed": 3}
    (cause,) = dry.document["causes"]
    assert cause["cause"].startswith(f"dry run: {said}")
    assert bytes_of(fleet) == before


# MariaDB, where DDL commits.


@pytest.fixture
def on_mariadb(mariadb: MariaDB, prefix: str, tmp_path: Path) -> Callable[..., Fleet]:
    """Make a fleet of two tenants, each with a table `done`."""

    def make(body: str, *, schema: Iterable[str] = (), keys: str = "") -> Fleet:
        names = [f"{prefix}{n}" for n in range(2)]
        mariadb.create_databases(names, "CREATE TABLE done (n INT) ENGINE=InnoDB", *schema)
        servers = {
            "main": {"url": mariadb.url(database=""), "discover": {"databases": f"{prefix}*"}}
        }
        insert = 'ctx.execute("INSERT INTO done VALUES (1)")'
        source = (
            f"@job({keys})\ndef work(ctx):\n    {insert}\n    {body}\n    return {{'rows': 1}}\n"
        )
        return Fleet(tmp_path, {"servers": servers}, {"jobs": source})

    return make


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE more (n INT)",
        "ALTER TABLE done ADD COLUMN m INT",
        "TRUNCATE TABLE done",
        "DROP TABLE done",
        "LOCK TABLES done WRITE",
        "ANALYZE TABLE done",
        "START TRANSACTION",
        "SET autocommit = 1",
        "SET @a = 1, SESSION autocommit = ON",
        "SET STATEMENT max_statement_time = 9 FOR TRUNCATE TABLE done",
        "/*! TRUNCATE TABLE done */",
        "-- tidy\n# up\n/* now */ TRUNCATE TABLE done",
        "EXECUTE IMMEDIATE 'TRUNCATE TABLE done'",
        "COMMIT",
    ],
)
def test_what_commits_by_itself_is_refused_before_it_is_executed(
    mariadb: MariaDB, prefix: str, on_mariadb: Callable[..., Fleet], statement: str
) -> None:
    fleet = on_mariadb(f"ctx.connection.exec_driver_sql({statement!r})")
    before = rows_on(mariadb, prefix)
    dry = fleet.run(*DRY)

    assert dry.document["outcomes"] == {"failed": 2}
    assert dry.document["causes"][0]["cause"].startswith("dry run: ")
    assert rows_on(mariadb, prefix) == before


@pytest.mark.parametrize(
    "statement",
    [
        "SET @a = 1",
        "SELECT 1",
        "(SELECT 1) UNION (SELECT 2)",
        "WITH x AS (SELECT 1) SELECT * FROM x",
        "CREATE TEMPORARY TABLE t (n INT)",
        "SAVEPOINT a",
        "SHOW TABLES",
    ],
)
def test_what_does_not_commit_is_executed(
    mariadb: MariaDB, prefix: str, on_mariadb: Callable[..., Fleet], statement: str
) -> None:
    fleet = on_mariadb(f"ctx.connection.exec_driver_sql({statement!r})")
    before = rows_on(mariadb, prefix)
    dry = fleet.run(*DRY)

    assert dry.document["outcomes"] == {"succeeded": 2}, dry.document["causes"]
    assert {row["rows_changed"] for row in dry.document["executions"]} == {1}
    assert rows_on(mariadb, prefix) == before


def test_an_exactly_once_job_leaves_neither_marker_nor_table(
    mariadb: MariaDB, prefix: str, on_mariadb: Callable[..., Fleet]
) -> None:
    fleet = on_mariadb("pass", keys="exactly_once=True")
    before = rows_on(mariadb, prefix)
    dry = fleet.run(*DRY, *AT)
    assert rows_on(mariadb, prefix) == before
    real = fleet.run("run", "--json", *AT)
    done = fleet.run(*DRY, *AT, "--again")

    assert {row["rows_changed"] for row in dry.document["executions"]} == {1}
    assert changes(dry) == changes(real)
    assert {row["reason"] for row in done.document["executions"]} == {"recovered"}
    assert {row["rows_changed"] for row in done.document["executions"]} == {0}


def test_a_table_without_transactions_keeps_its_rows_and_that_is_said(
    on_mariadb: Callable[..., Fleet],
) -> None:
    fleet = on_mariadb(
        "ctx.execute('INSERT INTO old VALUES (1)')",
        schema=["CREATE TABLE old (n INT) ENGINE=MyISAM"],
    )
    dry = fleet.run("run", "--dry-run")

    assert dry.code == 1
    assert "a table without transactions was changed" in dry.stdout
    assert "nothing was changed" not in dry.stdout


def test_an_isolated_job_is_rolled_back_as_well(tmp_path: Path) -> None:
    fleet = small(
        tmp_path,
        """
    def ready(ctx):
        return {"n": 3}

    @job(isolation="process", prepare=ready)
    def work(ctx):
        ctx.execute("INSERT INTO done VALUES ('work', :slot)")
        return {"prepared": ctx.prepared["n"], "dry": int(ctx.dry_run)}
""",
    )
    done = fleet.run("run", "--json", "--dry-run")
    assert done.code == 0, done.stderr
    assert done.execution("jobs.work", "t0")["counters"] == {"prepared": 3, "dry": 1}
    assert done.execution("jobs.work", "t0")["rows_changed"] == 1
    assert written(fleet) == {"t0": 0, "t1": 0, "t2": 0}
