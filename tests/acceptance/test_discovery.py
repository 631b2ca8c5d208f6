"""Discovery on real servers: every tenant is found and named, or the run says that it was not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.fleet import Finished, Fleet
from tests.servers import MariaDB, free_port, promtool, quote

COUNT = """
    @job
    def mark(ctx):
        ctx.connection.execute(text("CREATE TABLE IF NOT EXISTS mark (tenant VARCHAR(64))"))
        ctx.connection.execute(
            text("INSERT INTO mark VALUES (:tenant)"), {"tenant": ctx.tenant.name}
        )
        return {"same": int(ctx.execute("SELECT DATABASE()").scalar_one() == ctx.tenant.database)}
"""
OK, USAGE, DISCOVERY = 0, 2, 4


@pytest.fixture
def user(mariadb: MariaDB, prefix: str) -> str:
    """A user with grants on the databases of this test, and no others."""
    mariadb.create_user(prefix + "cron", "pw", on=f"`{prefix}%`.*")
    return prefix + "cron"


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Fleet]:
    return lambda **servers: Fleet(tmp_path, {"servers": servers}, {"one": COUNT})


def server(url: str, **discover: Any) -> dict[str, Any]:
    return {"url": url, "connect_timeout": "3s", "discover": discover}


def ran(run: Finished) -> list[str]:
    return sorted(row["tenant"] for row in run.document["executions"])


def test_names_that_need_quoting_work(
    mariadb: MariaDB, prefix: str, user: str, tmp_path: Path
) -> None:
    odd = [
        "hyphen-ated", "back`tick", "per%cent", "%s", "dotted.name", "a blank", "semi;colon",
        "single'quote", 'double"quote', "back\\slash", "br[ack]et", "dollar$", "Größe_日本",
        "Acme", "acme", "ACME",
    ]  # fmt: skip
    names = [prefix + each for each in odd]
    names.append(prefix + "x" * (64 - len(prefix)))
    mariadb.create_databases(names)
    config = {
        "servers": {"main": server(mariadb.url(user, "pw"), databases=f"{prefix}*")},
        "metrics": {"textfile": "cron.prom"},
    }
    fleet = Fleet(tmp_path, config, {"one": COUNT})

    run = fleet.run("--json")

    assert run.code == OK, run.stdout
    assert ran(run) == sorted(names)
    assert {row["counters"]["same"] for row in run.document["executions"]} == {1}
    for name in names:
        assert mariadb.execute(f"SELECT tenant FROM {quote(name)}.mark") == [(name,)]
    checked = promtool("check", "metrics", input=(tmp_path / "cron.prom").read_text())
    assert (checked.returncode, checked.stderr) == (0, "")

    again = fleet.run("--json", *(f"--tenant={name}" for name in names))
    assert (again.code, ran(again)) == (OK, sorted(names))


def test_a_name_that_cannot_be_shown_is_refused_by_name(
    mariadb: MariaDB, prefix: str, user: str, make: Callable[..., Fleet]
) -> None:
    mariadb.create_databases([prefix + "good", prefix + "bell\a"])
    run = make(main=server(mariadb.url(user, "pw"), databases=f"{prefix}*")).run("--json")

    assert (run.code, ran(run)) == (OK, [prefix + "good"])
    (refused,) = run.log_lines("discovery.tenant_refused")
    reason = refused["event"]["reason"]
    assert reason == f"'{prefix}bell\\x07' holds characters that cannot be printed"


def test_globs_take_an_underscore_literally_and_never_find_system_schemas(
    mariadb: MariaDB, prefix: str, make: Callable[..., Fleet]
) -> None:
    mariadb.create_databases([prefix + each for each in ("a_1", "ab1", "a_template", "a_2")])
    administrator = server(mariadb.url(), databases=[f"{prefix}a_*"], exclude=["*_template"])
    everything = server(mariadb.url(), databases="*")

    assert ran(make(main=administrator).run("--json")) == [prefix + "a_1", prefix + "a_2"]
    found = {row["tenant"] for row in make(main=everything).run("tenants", "--json").document}
    assert prefix + "ab1" in found
    assert found.isdisjoint({"mysql", "information_schema", "performance_schema", "sys"})


def test_a_server_that_is_down_fails_discovery_and_the_others_run(
    mariadb: MariaDB, prefix: str, user: str, make: Callable[..., Fleet]
) -> None:
    mariadb.create_databases([prefix + "a", prefix + "b"])
    fleet = make(
        down=server(f"mysql+pymysql://nobody@127.0.0.1:{free_port()}", databases="*"),
        main=server(mariadb.url(user, "pw"), databases=f"{prefix}*"),
    )

    run = fleet.run("--json")

    assert run.code == DISCOVERY
    assert ran(run) == [prefix + "a", prefix + "b"]
    assert run.document["outcomes"] == {"succeeded": 2}
    (error,) = run.document["errors"]
    assert error.startswith("server down: discovery failed: OperationalError 2003: Can't connect")
    (line,) = run.log_lines("discovery.failed")
    assert line["event"]["reason"] == "unreachable"


def test_lost_grants_are_no_empty_fleet(
    mariadb: MariaDB, prefix: str, user: str, make: Callable[..., Fleet]
) -> None:
    mariadb.create_databases([prefix + "a", prefix + "b"])
    fleet = make(main=server(mariadb.url(user, "pw"), databases=f"{prefix}*"))
    assert fleet.run("--json").code == OK
    mariadb.execute(f"REVOKE ALL ON `{prefix}%`.* FROM {user}@127.0.0.1")

    run = fleet.run("--json")

    assert (run.code, ran(run)) == (DISCOVERY, [])
    assert "are the grants still there?" in run.document["errors"][0]
    assert fleet.query("SELECT COUNT(*) FROM tenants") == [(2,)]


def test_a_registry_gives_names_databases_labels_and_time_zones(
    mariadb: MariaDB, prefix: str, user: str, make: Callable[..., Fleet]
) -> None:
    mariadb.create_databases([prefix + "registry", prefix + "one", prefix + "two"])
    mariadb.execute_script(
        [
            "CREATE TABLE t (name VARCHAR(64), db VARCHAR(64), labels TEXT, zone VARCHAR(64))",
            f"""INSERT INTO t VALUES
                ('one', '{prefix}one', '{{"plan": "gold"}}', 'Europe/Berlin'),
                ('two', '{prefix}two', 'plan=free, region=eu', NULL)""",
        ],
        database=prefix + "registry",
    )
    query = f"SELECT name, db AS `database`, labels, zone AS timezone FROM {prefix}registry.t"
    fleet = make(main=server(mariadb.url(user, "pw"), query=query))

    found = {row["tenant"]: row for row in fleet.run("tenants", "--json").document}
    gold = fleet.run("--json", "--label", "plan=gold")

    assert (gold.code, ran(gold)) == (OK, ["one"])
    assert found["one"]["labels"] == {"plan": "gold"}
    assert found["two"]["labels"] == {"plan": "free", "region": "eu"}
    assert (found["one"]["timezone"], found["two"]["timezone"]) == ("Europe/Berlin", "UTC")


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("SELEKT 1", "ProgrammingError 1064"),
        ("SELECT name FROM nowhere.tenants", "OperationalError 1142: SELECT command denied"),
        ("SELECT 'a' AS name", "expected the query to give name and database, database is missing"),
        ("SELECT 'a' AS name, NULL AS `database`", "expected the query to give text"),
        ("SELECT 'a' name, 'a' `database`, 'Mars' timezone", "expected a time zone"),
        ("SELECT 'a' name, 'a' `database`, 'gold' labels", "expected labels as a JSON object"),
        ("SELECT 'a' name, 'a' `database` FROM DUAL WHERE 1 = 0", "no tenants were found"),
    ],
)
def test_a_bad_registry_query_fails_discovery(
    mariadb: MariaDB, user: str, make: Callable[..., Fleet], query: str, error: str
) -> None:
    run = make(main=server(mariadb.url(user, "pw"), query=query)).run("--json")

    assert (run.code, ran(run)) == (DISCOVERY, [])
    assert error in run.document["errors"][0]


def test_a_third_of_the_tenants_lost_is_reported_until_it_is_accepted(
    mariadb: MariaDB, prefix: str, user: str, make: Callable[..., Fleet]
) -> None:
    names = [f"{prefix}{number}" for number in range(9)]
    mariadb.create_databases(names)
    fleet = make(main=server(mariadb.url(user, "pw"), databases=f"{prefix}*"))
    assert fleet.run().code == OK
    mariadb.execute_script(f"DROP DATABASE {quote(name)}" for name in names[:3])

    shrunk = fleet.run("--json")

    assert (shrunk.code, ran(shrunk)) == (DISCOVERY, names[3:])
    assert shrunk.document["outcomes"] == {"succeeded": 6}
    (error,) = shrunk.document["errors"]
    assert "found 6 of 9 tenants" in error
    assert all(name in error for name in names[:3])
    assert fleet.run().code == DISCOVERY
    accepted = fleet.run("--accept-shrink", "--json")
    assert (accepted.code, accepted.document["errors"]) == (OK, [])
    assert fleet.run().code == OK


def test_one_tenant_name_on_two_servers_is_a_mistake_until_one_has_a_prefix(
    mariadb: MariaDB, prefix: str, user: str, make: Callable[..., Fleet]
) -> None:
    mariadb.create_databases([prefix + "a", prefix + "b"])
    url = mariadb.url(user, "pw")
    west = server(url, list=[{"name": "acme", "database": prefix + "a"}])
    east = server(url, list=[{"name": "acme", "database": prefix + "b"}])

    twins = make(west=west, east=east).run("--json")
    assert (twins.code, ran(twins)) == (USAGE, [])
    (error,) = twins.document["errors"]
    assert "tenant 'acme' is on the servers west and east; give one of them a discover" in error

    east["discover"]["prefix"] = "east-"
    both = make(west=west, east=east).run("--json")
    assert (both.code, ran(both)) == (OK, ["acme", "east-acme"])
