"""The fixture that gives a test its tenant."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import MetaData, make_url

from cronrunner.testing.finding import job_folder, jobs_in
from cronrunner.testing.places import Files, Place, Schema, ServerDatabase
from cronrunner.testing.tenant import ThrowawayTenant

#: Names a server for tests; databases on it are made and dropped.
VARIABLE: Final = "CRONRUNNER_TEST_URL"


def throwaway_tenant(
    schema: Schema = None,
    *,
    servers: Mapping[str, str] | None = None,
    jobs: Path | None = None,
    name: str = "acme",
) -> Any:
    """Make a fixture that gives each test a tenant with this schema and no rows.

    ``schema`` is SQLAlchemy's ``MetaData``, SQL text, or the path of a file of it. Each test is
    run on SQLite, and once more on each of ``servers``: names, as they stand in the ids of tests,
    and URLs, or the names of fixtures of session scope that give one. By default that is the
    server that ``CRONRUNNER_TEST_URL`` names, if it is set; one that cannot be reached is an error.
    ``jobs`` is the folder of jobs; by default the one of the project in pytest's root folder.
    ``name`` is the tenant's.
    """
    urls = _from_environment() if servers is None else servers
    places: dict[str, Place] = {}
    tables = schema if isinstance(schema, MetaData) else MetaData()

    @pytest.fixture(params=["sqlite", *urls])
    def tenant(
        request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[ThrowawayTenant]:
        kind: str = request.param
        if kind not in places:
            url = urls.get(kind)
            if url is not None and "://" not in url:
                url = request.getfixturevalue(url)
            folder = tmp_path_factory.mktemp("tenants")
            places[kind] = Files(folder, schema) if url is None else ServerDatabase(url, schema)
            # Before the fixture ends that gave the URL, and its server with it.
            request.session.addfinalizer(lambda: places.pop(kind).close())
        place = places[kind]
        database = place.take()
        found = jobs_in(jobs or job_folder(request.config.rootpath))
        tenant = ThrowawayTenant(place, database, found, tables=tables, name=name)
        yield tenant
        tenant.close()
        place.give_back(database)

    return tenant


def _from_environment() -> dict[str, str]:
    url = os.environ.get(VARIABLE)
    return {make_url(url).get_backend_name(): url} if url else {}
