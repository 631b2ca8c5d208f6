"""The ledger on a MariaDB server: the same promises as on SQLite."""

import signal
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.fleet import Fleet, finish
from tests.servers import MariaDB, quote

SLOT = "--scheduled-at=2026-03-01T02:00:00Z"
NAMES = ("Acme", "acme", "größe", "d", "e", "f")

JOBS = """
    import time
    from pathlib import Path

    @job
    def once(ctx):
        ctx.connection.execute(text("INSERT INTO done VALUES (:slot)"), {"slot": str(ctx.slot)})
        return {"rows": 1}

    @job
    def wait(ctx):
        Path("begun").touch()
        while Path("hold").exists():
            time.sleep(0.01)
"""

Make = Callable[[str], Fleet]


@pytest.fixture
def ledger(mariadb: MariaDB, prefix: str) -> str:
    """The name of the ledger's database, which the globs of tenants match as well."""
    mariadb.create_databases([prefix + "ledger"])
    return prefix + "ledger"


@pytest.fixture
def make(mariadb: MariaDB, prefix: str, ledger: str, tmp_path: Path) -> Make:
    """Make a fleet whose ledger is given in one of the two ways."""
    mariadb.create_databases([prefix + name for name in NAMES], "CREATE TABLE done (slot TEXT)")
    mariadb.create_user(prefix + "cron", "pw", on=f"`{prefix}%`.*")

    def make(form: str) -> Fleet:
        url = mariadb.url(prefix + "cron", "pw")
        main = {
            "url": url,
            "max_connections": 7,
            "discover": {"databases": f"{prefix}*", "exclude": [ledger] * (form == "url")},
        }
        at: Any = {"server": "main", "database": ledger} if form == "server" else f"{url}/{ledger}"
        return Fleet(tmp_path, {"ledger": at, "servers": {"main": main}}, {"led": JOBS})

    return make


def rows(mariadb: MariaDB, prefix: str) -> list[int]:
    """How often each tenant's job has committed."""
    return [
        mariadb.execute(f"SELECT COUNT(*) FROM {quote(prefix + name)}.done")[0][0] for name in NAMES
    ]


@pytest.mark.parametrize("form", ["server", "url"])
def test_a_slot_runs_once_and_its_history_is_read_back(
    mariadb: MariaDB, prefix: str, ledger: str, make: Make, form: str
) -> None:
    fleet = make(form)

    first = fleet.run(SLOT, "--json")
    second = fleet.run(SLOT, "--json")

    assert (first.code, first.document["outcomes"]) == (0, {"succeeded": 12}), first.stderr
    assert first.outcomes.keys() == {
        (job, prefix + name) for job in ("led.once", "led.wait") for name in NAMES
    }
    assert (second.code, second.document["outcomes"]) == (0, {})
    assert second.document["duplicates"] == 12
    assert rows(mariadb, prefix) == [1] * 6
    recorded = mariadb.execute(
        "SELECT outcome, COUNT(*) FROM executions GROUP BY outcome", database=ledger
    )
    assert recorded == [("succeeded", 12)]
    history = fleet.run("history", "--json", "--tenant", prefix + "Acme").document
    assert {(row["job"], row["tenant"]) for row in history} == {
        ("led.once", prefix + "Acme"),
        ("led.wait", prefix + "Acme"),
    }
    assert fleet.run("show", first.document["run"], "--json").document["outcomes"] == {
        "succeeded": 12
    }


def test_two_runners_at_once_do_each_execution_once_between_them(
    mariadb: MariaDB, prefix: str, ledger: str, make: Make
) -> None:
    fleet = make("server")

    with fleet.started(SLOT, "--json") as one, fleet.started(SLOT, "--json") as other:
        runs = [finish(one), finish(other)]

    assert {run.code for run in runs} <= {0, 3}, [run.stderr for run in runs]
    assert rows(mariadb, prefix) == [1] * 6
    done = [key for run in runs for key in run.outcomes]
    assert len(done) == len(set(done)) == 12
    assert mariadb.execute("SELECT COUNT(*) FROM executions", database=ledger) == [(12,)]


def test_what_a_killed_run_left_is_named_and_done_by_the_next(
    mariadb: MariaDB, prefix: str, ledger: str, make: Make, tmp_path: Path
) -> None:
    fleet = make("server")
    (tmp_path / "hold").touch()
    with fleet.started(SLOT, "--json") as process:
        deadline = time.monotonic() + 30
        # Three visits at once: their first job is recorded, their second one waits.
        while _recorded(mariadb, ledger) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    (tmp_path / "hold").unlink()

    run = fleet.run(SLOT, "--json")

    assert run.code == 0, run.stderr
    (found,) = run.log_lines("run.interrupted_found")
    # What was under way, and what was claimed ahead of it.
    assert found["cronrunner"]["executions"] >= 3
    assert run.document["duplicates"] == 3
    assert run.document["outcomes"] == {"succeeded": 9}
    assert rows(mariadb, prefix) == [1] * 6


def _recorded(mariadb: MariaDB, ledger: str) -> int:
    if not mariadb.execute("SHOW TABLES LIKE 'executions'", database=ledger):
        return 0
    count: int = mariadb.execute("SELECT COUNT(*) FROM executions", database=ledger)[0][0]
    return count


def test_the_ledgers_connections_count_for_the_servers_limit(
    mariadb: MariaDB, prefix: str, make: Make, tmp_path: Path
) -> None:
    fleet = make("server")
    counts: list[int] = []
    query = "SELECT COUNT(*) FROM information_schema.processlist WHERE user = %s"
    (tmp_path / "hold").touch()
    with fleet.started("--json") as process, closing(mariadb.connect()) as connection:
        while process.poll() is None:
            with connection.cursor() as cursor:
                cursor.execute(query, (prefix + "cron",))
                counts.append(cursor.fetchall()[0][0])
            time.sleep(0.02)
            # Half a second of its jobs is seen, however long it takes to begin.
            if sum(count > 3 for count in counts) > 25:
                (tmp_path / "hold").unlink(missing_ok=True)
        assert finish(process).code == 0

    assert 3 < max(counts) <= 6


def test_a_ledger_without_a_database_is_refused_before_anything_runs(
    mariadb: MariaDB, prefix: str, ledger: str, make: Make
) -> None:
    fleet = make("server")
    mariadb.execute(f"DROP DATABASE {ledger}")

    run = fleet.run("--json")

    assert (run.code, run.document["executions"]) == (70, [])
    assert f"Unknown database '{ledger}'" in run.document["errors"][0]
    assert rows(mariadb, prefix) == [0] * 6
