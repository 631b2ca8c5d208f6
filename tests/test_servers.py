"""The servers of the tests do what the tests rely on."""

import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pymysql
import pytest

from tests.servers import HOST, MariaDB, Prometheus, SilentServer, promtool


def test_a_statement_shows_up_in_the_general_log_under_its_connection(
    mariadb: MariaDB, prefix: str
) -> None:
    user = prefix[:20] + "log"
    mariadb.create_user(user, "p@ss/word")
    mariadb.create_databases([f"{prefix}a", f"{prefix}b"], "CREATE TABLE t (n INT)")
    since = mariadb.log_position()
    for name in ("a", "b"):
        with mariadb.connect(user, "p@ss/word", prefix + name) as connection:
            connection.cursor().execute("SELECT COUNT(*)\nFROM t")

    entries = mariadb.general_log(since=since, user=user)

    by_thread: dict[int, list[tuple[str, str]]] = {}
    for entry in entries:
        by_thread.setdefault(entry.thread, []).append((entry.command, entry.argument))
    assert len(by_thread) == 2
    for name, sent in zip("ab", by_thread.values(), strict=True):
        assert sent[0] == ("Connect", f"{user}@{HOST} on {prefix}{name} using TCP/IP")
        assert ("Query", "SELECT COUNT(*)\nFROM t") in sent


def test_the_process_list_names_the_connections_of_others(mariadb: MariaDB, prefix: str) -> None:
    mariadb.create_databases([f"{prefix}a"])
    with mariadb.connect(database=f"{prefix}a") as connection:
        others = {entry["id"]: entry["db"] for entry in mariadb.process_list()}
        assert others[connection.thread_id()] == f"{prefix}a"


def test_a_thousand_databases_are_made_within_seconds(mariadb: MariaDB, prefix: str) -> None:
    started = time.monotonic()
    mariadb.create_databases(f"{prefix}{number}" for number in range(1000))
    assert time.monotonic() - started < 20


def test_a_killed_server_comes_back_on_its_port_with_its_data(
    mariadb_server: Callable[..., MariaDB],
) -> None:
    server = mariadb_server(max_connections=17)
    server.create_databases(["kept"], "CREATE TABLE t (n INT)", "INSERT INTO t VALUES (1)")
    url = server.url()

    server.kill()
    with pytest.raises(pymysql.OperationalError):
        server.connect()
    server.start()

    assert server.url() == url
    assert server.execute("SELECT n, @@max_connections FROM t", database="kept") == [(1, 17)]


def test_a_server_with_tls_has_a_certificate_that_verifies(
    mariadb_server: Callable[..., MariaDB],
) -> None:
    server = mariadb_server(tls=True)
    context = ssl.create_default_context(cafile=str(server.ca_file))
    with server.connect(ssl=context, ssl_disabled=False) as connection:
        cursor = connection.cursor()
        cursor.execute("SHOW STATUS LIKE 'Ssl_cipher'")
        assert cursor.fetchall()[0][1]


def test_a_server_ends_with_the_process_that_started_it() -> None:
    code = (
        "import os, signal\n"
        "from tests.servers import MariaDB\n"
        "server = MariaDB()\n"
        "print(server.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    started = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    pid = int(started.stdout)
    deadline = time.monotonic() + 10
    while _is_alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_server_which_cannot_start_is_a_failure_that_says_why() -> None:
    with pytest.raises(RuntimeError, match="no-such-option"):
        MariaDB(no_such_option=1)


def test_prometheus_scrapes_and_answers(prometheus: Callable[..., Prometheus]) -> None:
    first = prometheus(f"{HOST}:1")
    second = prometheus(f"{HOST}:{first.port}", job="other")

    labels, value = second.await_query("up == 1")[0]

    assert (labels["job"], value) == ("other", 1.0)
    assert [target["health"] for target in second.targets()] == ["up"]


def test_promtool_judges_metrics() -> None:
    assert (
        promtool(
            "check", "metrics", input="# HELP a_total A.\n# TYPE a_total counter\na_total 1\n"
        ).returncode
        == 0
    )
    assert promtool("check", "metrics", input="a_total{ 1\n").returncode != 0


def test_the_silent_server_accepts_and_never_speaks(silent_server: SilentServer) -> None:
    with socket.create_connection((HOST, silent_server.port)) as client:
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(1)
    assert silent_server.connections == 1


def test_no_setting_of_the_developer_reaches_a_test() -> None:
    assert not [name for name in os.environ if name.startswith("CRONRUNNER_")]


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
