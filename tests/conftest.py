"""Fixtures of all tests: real servers, and an environment that says nothing."""

import json
import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance import fleet
from tests.servers import DatabaseServer, HttpServer, MariaDB, MySQL, Prometheus, SilentServer

#: What the fixtures give as `mariadb`, by the option that asks for it.
SERVERS: dict[str, type[DatabaseServer]] = {"mariadb": MariaDB, "mysql": MySQL}

#: Tests that need more than `make servers` brings.
_APART = Path(__file__).parent / "galera"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--server",
        choices=[*SERVERS, "galera"],
        default="mariadb",
        help="what the tests get as `mariadb`; with mysql only those that use it are run, with"
        " galera those of a cluster",
    )
    parser.addoption(
        "--default",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="what configurations say where a test does not, such as runner.processes=2 or"
        " servers.*.connections=reset; may be given again",
    )
    # Here and not in tests/faults: pytest asks only the folders on its command line and above.
    parser.addoption("--long", action="store_true", help="repeat each fault many times")


def pytest_configure(config: pytest.Config) -> None:
    for given in config.getoption("default"):
        path, _, value = given.partition("=")
        try:
            fleet.DEFAULTS[tuple(path.split("."))] = json.loads(value)
        except ValueError:
            fleet.DEFAULTS[tuple(path.split("."))] = value


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    wanted = config.getoption("server") == "galera"
    return True if collection_path == _APART and not wanted else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("server") == "mysql":
        _keep_what_uses_a_server(config, items)
    if fleet.DEFAULTS:
        _leave_out(config, items, "as_written")
    if ("runner", "processes") in fleet.DEFAULTS:
        _leave_out(config, items, "one_process")
    if getattr(config.option, "loadgroup", False):
        _keep_groups(items)


def _leave_out(config: pytest.Config, items: list[pytest.Item], marker: str) -> None:
    marked = [item for item in items if item.get_closest_marker(marker)]
    config.hook.pytest_deselected(items=marked)
    items[:] = [item for item in items if item not in marked]


def _keep_what_uses_a_server(config: pytest.Config, items: list[pytest.Item]) -> None:
    kept = [item for item in items if _uses_server(item)]
    for item in kept:
        if alone := item.get_closest_marker("mariadb_alone"):
            item.add_marker(pytest.mark.skip(reason=alone.args[0]))
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def _uses_server(item: pytest.Item) -> bool:
    """Tell whether a test is about a server; some fixtures ask for it only in one parameter."""
    parameters = getattr(item, "callspec", None)
    given = [] if parameters is None else parameters.params.values()
    kinds = {"sqlite", *SERVERS} & {value for value in given if isinstance(value, str)}
    if kinds:
        return "sqlite" not in kinds
    return not {"mariadb", "mariadb_server"}.isdisjoint(getattr(item, "fixturenames", ()))


def _keep_groups(items: list[pytest.Item]) -> None:
    """Keep the groups of pytest-xdist 3.8, which writes them where pytest 9.2 no longer reads."""
    for item in items:
        grouped = getattr(item, "_nodeid", item.nodeid)
        if grouped != item.nodeid:
            item._id = type(item.id).parse(grouped)


@pytest.fixture(autouse=True)
def _silent_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the developer has set for cronrunner does not reach a test."""
    for name in os.environ:
        if name.startswith("CRONRUNNER_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def server_kind(request: pytest.FixtureRequest) -> type[DatabaseServer]:
    """Say which server the tests run on."""
    return SERVERS[request.config.getoption("server")]


@pytest.fixture(scope="session")
def mariadb(server_kind: type[DatabaseServer]) -> Iterator[DatabaseServer]:
    """Share one server among the tests of a worker: take names that begin with `prefix`."""
    with server_kind() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_url(mariadb: DatabaseServer) -> str:
    """Tell `throwaway_tenant` where that server is."""
    return mariadb.url()


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> Iterator[str]:
    """Give a beginning for names that no other test uses; such databases are dropped afterwards."""
    own = f"t{secrets.token_hex(4)}_"
    uses_mariadb = "mariadb" in request.fixturenames
    yield own
    if uses_mariadb:
        request.getfixturevalue("mariadb").drop_databases(own)


@pytest.fixture
def mariadb_server(
    server_kind: type[DatabaseServer],
) -> Iterator[Callable[..., DatabaseServer]]:
    """Make servers of a test's own, to be configured, stopped and killed."""
    made: list[DatabaseServer] = []

    def make(**options: str | float) -> DatabaseServer:
        made.append(server_kind(**options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for server in made:
        server.remove()


@pytest.fixture
def prometheus() -> Iterator[Callable[..., Prometheus]]:
    """Make Prometheus servers which scrape `host:port` targets every second."""
    made: list[Prometheus] = []

    def make(*targets: str, **options: str) -> Prometheus:
        made.append(Prometheus.scraping(*targets, **options))
        return made[-1]

    yield make
    for server in made:
        server.remove()


@pytest.fixture
def silent_server() -> Iterator[SilentServer]:
    """Give a server which accepts and never speaks."""
    server = SilentServer()
    yield server
    server.close()


@pytest.fixture
def http_server() -> Iterator[HttpServer]:
    """Give an HTTP server which answers 200 to everything unless it is told otherwise."""
    with HttpServer() as server:
        yield server


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB, which only root can make."""
    if os.geteuid() != 0:
        pytest.skip("a file system of its own takes root")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)
