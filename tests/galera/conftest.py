"""A cluster that the tests share: its data is on each of its nodes."""

from collections.abc import Iterator

import pytest

from tests.servers import Galera


@pytest.fixture(scope="session")
def galera() -> Iterator[Galera]:
    """Share one cluster of two nodes."""
    with Galera() as cluster:
        yield cluster


@pytest.fixture
def prefix(galera: Galera, prefix: str) -> Iterator[str]:
    """Give a beginning for names; the databases are dropped afterwards."""
    yield prefix
    galera.nodes[0].drop_databases(prefix)
