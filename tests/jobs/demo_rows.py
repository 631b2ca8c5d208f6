"""What tests on the demo's data say often: a tenant of the demo, its rows, and plain sums."""

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from demo.files import Places, make_files
from demo.planting import contents, scene_of
from demo.tenants import DemoTenant, fleet
from jobs.schema import metadata
from tests.jobs.tenant import S, TenantDatabase

Row = dict[str, Any]

#: Every zone and every mood, with and without earlier figures, and one tenant with bad rows.
TENANTS = fleet(6)
#: One with bad rows; of the others one looks well, and one does not.
FEW = TENANTS[1:4]


def filled(tenants: Sequence[DemoTenant]) -> Any:
    """Make a fixture that fills the tenant with the rows that the demo gives to each of these."""

    @pytest.fixture(params=tenants, ids=lambda each: each.name)
    def planned(request: pytest.FixtureRequest, tenant: TenantDatabase) -> DemoTenant:
        chosen: DemoTenant = request.param
        fill(tenant, chosen)
        return chosen

    return planned


def fill(tenant: TenantDatabase, chosen: DemoTenant) -> None:
    for table, rows in contents(chosen, scene_of(chosen, seed=1, at=S)).items():
        tenant.add(metadata.tables[table], *rows)


def files_of(planned: DemoTenant, folder: Path) -> Places:
    """Make the files that go with these rows."""
    places = Places(folder)
    make_files(places, [scene_of(planned, seed=1, at=S)], S)
    return places


def today(planned: DemoTenant) -> date:
    return date_in(S, planned.zone)


def date_in(moment: datetime, zone: str) -> date:
    return moment.astimezone(ZoneInfo(zone)).date()


def chosen(rows: Iterable[Row], **wanted: Any) -> list[Row]:
    """Return the rows whose columns have these values."""
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def can_be_told(user: Row) -> bool:
    return user["status"] == "active" and user["email"].count("@") == 1 and " " not in user["email"]


def admins(tenant: TenantDatabase) -> list[Row]:
    return [user for user in chosen(tenant.rows("users"), role="admin") if can_be_told(user)]


def queued(tenant: TenantDatabase) -> int:
    """Count the messages that jobs have queued."""
    return sum(row["source_job"] != "demo" for row in tenant.rows("outbox"))


def marks(tenant: TenantDatabase, job: str) -> set[str]:
    return {row["item"] for row in chosen(tenant.rows("job_items"), job=job, state="done")}
