"""Make the databases of a fleet, with what is wrong with each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from sqlalchemy import Connection, insert

from demo.defects import LARGE_SCALE, MISSING_TABLE, bad_rows
from demo.rows import complete, rows_of
from demo.scene import Row, Scene
from demo.stores import Store
from demo.tenants import Defect, DemoTenant
from jobs.schema import metadata


def plant(
    store: Store, tenants: Iterable[DemoTenant], *, seed: int, at: datetime
) -> Iterator[DemoTenant]:
    """Make every database, strangers included; yield each tenant when it is there."""
    for tenant in tenants:
        if tenant.defect is not Defect.UNREACHABLE:
            _make(store, tenant, scene_of(tenant, seed=seed, at=at))
        yield tenant
    store.add_strangers()


def scene_of(tenant: DemoTenant, *, seed: int, at: datetime) -> Scene:
    """Return what the tenant's rows depend on."""
    return Scene(
        seed=seed,
        tenant=tenant.name,
        index=tenant.index,
        zone=tenant.zone,
        at=at,
        scale=LARGE_SCALE if tenant.defect is Defect.LARGE else 1,
    )


def contents(tenant: DemoTenant, scene: Scene) -> dict[str, list[Row]]:
    """Return all rows of a tenant, complete and in the order in which they go in."""
    rows = rows_of(scene)
    if tenant.defect is Defect.BAD_ROWS:
        for table, bad in bad_rows(scene).items():
            rows[table] = [*rows[table], *bad]
    return {
        table.name: complete(table.name, rows[table.name])
        for table in metadata.sorted_tables
        if table.name in rows
    }


def _make(store: Store, tenant: DemoTenant, scene: Scene) -> None:
    engine = store.create(tenant.name)
    if tenant.defect is not Defect.EMPTY:
        with engine.begin() as connection:
            _fill(connection, contents(tenant, scene))
            if tenant.defect is Defect.MISSING_TABLE:
                metadata.tables[MISSING_TABLE].drop(connection)
    engine.dispose()


def _fill(connection: Connection, rows: dict[str, list[Row]]) -> None:
    metadata.create_all(connection)
    for table, its_rows in rows.items():
        if its_rows:
            connection.execute(insert(metadata.tables[table]), its_rows)
