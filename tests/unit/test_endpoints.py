"""Where servers and the ledger are, and how many visits each may have."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from cronrunner.app.endpoints import (
    default_concurrency,
    endpoint_of,
    ledger_endpoint,
    parse_url,
    reserved,
    visits_at_once,
)
from cronrunner.config import Settings, load
from cronrunner.databases import Endpoint, ServerParts
from cronrunner.databases.sqlite import SQLite

MAIN = """
servers:
  main:
    url: mysql://cron@db.internal:3307/?charset=utf8mb4
    password: ${PASSWORD}
    discover: {databases: "a*"}
    tls: verify
    tls_ca: ca.pem
    connect_timeout: 3s
  files: {url: "sqlite://", discover: {directory: tenants}}
"""


def settings(tmp_path: Path, text: str = "", **limits: int) -> Settings:
    main = MAIN.replace("    tls: verify", f"    tls: verify\n    max_connections: {limits['limit']}"
                        if limits else "    tls: verify")  # fmt: skip
    (tmp_path / "tenants.yaml").write_text(main + text, encoding="utf-8")
    return load(tmp_path / "tenants.yaml", {"PASSWORD": "p@ss:/word"})


def parts(limit: int | None) -> ServerParts:
    endpoint = Endpoint(name="main", url=make_url("mysql://x"))
    dialect: Any = None
    return ServerParts(
        endpoint=endpoint, kind=SQLite(), dialect=dialect, arguments={}, tls=None, limit=limit
    )


@pytest.mark.parametrize("scheme", ["mysql", "mysql+pymysql", "mariadb", "mariadb+pymysql"])
def test_every_way_to_write_mysql_takes_the_one_driver(scheme: str) -> None:
    assert parse_url(f"{scheme}://u@h/db").get_driver_name() == "pymysql"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("oracle://x", "expected a URL of mysql, mariadb, sqlite, got 'oracle'"),
        ("mysql+mysqldb://x", "expected the driver pymysql, got 'mysqldb'"),
        ("nonsense", "expected a URL such as mysql+pymysql://user@host:3306 or sqlite://"),
        ("mysql://u:hunter2@h:port", "expected a URL such as"),
        ("mysql://h:99999", "expected a port of 1 to 65535, got 99999"),
        ("mysql://h/?ssl_ca=x", "expected TLS to be set by the keys tls and tls_ca"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_being_shown(url: str, expected: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        parse_url(url)

    assert str(caught.value).startswith(expected)
    assert "hunter2" not in str(caught.value)


def test_an_endpoint_has_the_password_and_paths_that_the_file_means(tmp_path: Path) -> None:
    endpoint = endpoint_of(settings(tmp_path), "main")

    assert (endpoint.url.username, endpoint.url.password) == ("cron", "p@ss:/word")
    assert (endpoint.url.host, endpoint.url.port) == ("db.internal", 3307)
    assert (endpoint.tls, endpoint.tls_ca) == ("verify", tmp_path / "ca.pem")
    assert endpoint.connect_timeout_seconds == 3.0
    assert "p@ss" not in repr(endpoint)


def test_a_ledger_on_a_server_is_reached_like_the_server(tmp_path: Path) -> None:
    endpoint = ledger_endpoint(settings(tmp_path, "ledger: {server: main, database: cron}"))

    assert (endpoint.url.host, endpoint.url.database) == ("db.internal", "cron")
    assert (endpoint.tls, endpoint.url.password) == ("verify", "p@ss:/word")


def test_a_ledger_file_is_relative_to_the_configuration(tmp_path: Path) -> None:
    endpoint = ledger_endpoint(settings(tmp_path))

    assert endpoint.folder / str(endpoint.url.database) == tmp_path / "var" / "ledger.db"


@pytest.mark.parametrize("url", ["sqlite://", "'sqlite:///:memory:'", "mysql://u@h"])
def test_a_ledger_that_is_nowhere_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ValueError, match="expected the file or database"):
        ledger_endpoint(settings(tmp_path, f"ledger: {url}"))


def test_the_runners_own_connections_are_kept_from_the_visits(tmp_path: Path) -> None:
    alone = settings(tmp_path, limit=10)
    assert reserved(alone, "main") == 1
    assert visits_at_once(alone, "main", None) == 9
    assert reserved(alone, "files") == 0

    shared = settings(tmp_path, "ledger: {server: main, database: cron}", limit=10)
    assert reserved(shared, "main") == 4
    assert visits_at_once(shared, "main", None) == 6


@pytest.mark.parametrize(
    ("allowed", "visits"), [(None, 15), (500, 15), (20, 9), (3, 1), (1, 1), (0, 1)]
)
def test_without_a_limit_visits_take_half_of_what_the_server_allows_at_most_16(
    tmp_path: Path, allowed: int | None, visits: int
) -> None:
    assert visits_at_once(settings(tmp_path), "main", parts(allowed)) == visits


def test_concurrency_is_bounded_by_permits_and_by_cores() -> None:
    assert default_concurrency(0) == 1
    assert default_concurrency(3) == 3
    assert default_concurrency(10_000) <= 10_000
