"""A tenant's database on each kind of server, over the engine that a visit would use."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, make_url

from cronrunner import Tenant
from cronrunner.databases import Endpoint
from cronrunner.engines import Engines
from jobs.schema import metadata
from tests.jobs.tenant import TenantDatabase
from tests.servers import MariaDB


@pytest.fixture(params=["sqlite", "mariadb"])
def tenant(request: pytest.FixtureRequest) -> TenantDatabase:
    """Give an empty tenant with all of its tables, once on each kind of server."""
    engine: Engine = request.getfixturevalue(f"_{request.param}")
    with engine.begin() as connection:
        metadata.create_all(connection)
        for table in reversed(metadata.sorted_tables):
            connection.execute(table.delete())
    return TenantDatabase(engine)


@pytest.fixture
def _sqlite(tmp_path: Path) -> Iterator[Engine]:
    (tmp_path / "tenant.db").touch()
    yield from _visit(
        Endpoint(name="test", url=make_url("sqlite://"), folder=tmp_path), "tenant.db"
    )


@pytest.fixture(scope="session")
def _mariadb(mariadb: MariaDB) -> Iterator[Engine]:
    name = f"jobs_{secrets.token_hex(4)}"
    mariadb.create_databases([name])
    yield from _visit(Endpoint(name="test", url=make_url(mariadb.url())), name)
    mariadb.drop_databases(name)


def _visit(endpoint: Endpoint, database: str) -> Iterator[Engine]:
    visit = Engines({"test": endpoint}).visit(
        Tenant(name="agency_acorn", server="test", database=database)
    )
    yield visit.engine
    visit.close()
