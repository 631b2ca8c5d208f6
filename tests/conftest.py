"""Fixtures of all tests: real servers, and an environment that says nothing."""

import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers import MariaDB, Prometheus, SilentServer


def pytest_addoption(parser: pytest.Parser) -> None:
    # Here and not in tests/faults: pytest asks only the folders on its command line and above.
    parser.addoption("--long", action="store_true", help="repeat each fault many times")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the groups of pytest-xdist 3.8, which writes them where pytest 9.2 no longer reads."""
    if not getattr(config.option, "loadgroup", False):
        return
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
def mariadb() -> Iterator[MariaDB]:
    """Share one server among the tests of a worker: take names that begin with `prefix`."""
    with MariaDB() as server:
        yield server


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> Iterator[str]:
    """Give a beginning for names that no other test uses; such databases are dropped afterwards."""
    own = f"t{secrets.token_hex(4)}_"
    uses_mariadb = "mariadb" in request.fixturenames
    yield own
    if uses_mariadb:
        request.getfixturevalue("mariadb").drop_databases(own)


@pytest.fixture
def mariadb_server() -> Iterator[Callable[..., MariaDB]]:
    """Make servers of a test's own, to be configured, stopped and killed."""
    made: list[MariaDB] = []

    def make(**options: str | float) -> MariaDB:
        made.append(MariaDB(**options))  # type: ignore[arg-type]
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
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB, which only root can make."""
    if os.geteuid() != 0:
        pytest.skip("a file system of its own takes root")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)
