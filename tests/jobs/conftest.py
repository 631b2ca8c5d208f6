"""A tenant with all of its tables, once on each kind of server."""

import pytest

from cronrunner.testing import throwaway_tenant
from jobs.schema import metadata
from tests.servers import DatabaseServer


@pytest.fixture(scope="session")
def _mariadb_url(mariadb: DatabaseServer) -> str:
    return mariadb.url()


tenant = throwaway_tenant(metadata, servers={"mariadb": "_mariadb_url"}, name="agency_acorn")
