"""What is in tenants' databases and in files, so that before and after can be compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path

from sqlalchemy import Engine, inspect

from demo.files import Places
from demo.stores import Store
from demo.tenants import Defect, DemoTenant

#: A digest of each table of each tenant, and of each file, by its name.
Contents = Mapping[str, str]


def contents_of(store: Store, tenants: Iterable[DemoTenant], places: Places) -> Contents:
    """Read every row of every tenant that can be reached, and every file."""
    found: dict[str, str] = {}
    for tenant in tenants:
        if tenant.defect is not Defect.UNREACHABLE:
            engine = store.open(tenant.name)
            found |= {f"{tenant.name}.{table}": digest for table, digest in _tables(engine)}
            engine.dispose()
    for folder in (places.backups, places.logs, places.outbox):
        found |= {str(path): sha256(path.read_bytes()).hexdigest() for path in _files(folder)}
    return found


def changed(before: Contents, after: Contents) -> list[str]:
    """Return the names of the tables and files that are not as they were."""
    names = before.keys() | after.keys()
    return sorted(name for name in names if before.get(name) != after.get(name))


def _tables(engine: Engine) -> Iterator[tuple[str, str]]:
    quote = engine.dialect.identifier_preparer.quote
    with engine.connect() as connection:
        for table in inspect(connection).get_table_names():
            rows = connection.exec_driver_sql(f"SELECT * FROM {quote(table)}")  # noqa: S608 - quoted
            # In whatever order the rows come.
            digest = sha256("\n".join(sorted(map(repr, rows))).encode())
            yield table, digest.hexdigest()


def _files(folder: Path) -> Iterable[Path]:
    return (path for path in folder.rglob("*") if path.is_file())
