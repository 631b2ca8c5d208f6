"""A fleet of SQLite files with tables of the shipped jobs, and these jobs."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, Executable, Table, create_engine, insert, select

from jobs.schema import metadata
from tests.acceptance.fleet import ROOT, Fleet


class Shipped(Fleet):
    def __init__(  # noqa: PLR0913 - a small world
        self,
        folder: Path,
        tables: Sequence[Table],
        *,
        tenants: int = 1,
        runner: Mapping[str, Any] | None = None,
        jobs: Mapping[str, Any] | None = None,
        rows: Mapping[Table, Sequence[Mapping[str, Any]]] | None = None,
    ) -> None:
        """Make tenants `t0`, `t1` and so on, all with the same tables and rows."""
        self.names = [f"t{number}" for number in range(tenants)]
        config = {
            "job_folder": str(ROOT / "jobs"),
            "servers": {"files": {"url": "sqlite://", "discover": {"directory": "tenants"}}},
            "runner": runner or {"concurrency": 2},
            "jobs": jobs or {},
        }
        super().__init__(folder, config, {})
        (folder / "tenants").mkdir()
        engine = create_engine(f"sqlite:///{folder}/template.db")
        with engine.begin() as connection:
            metadata.create_all(connection, tables=tables)
            for table, given in (rows or {}).items():
                connection.execute(insert(table), list(given))
        engine.dispose()
        for name in self.names:
            shutil.copy(folder / "template.db", folder / "tenants" / f"{name}.db")

    def engine(self, name: str) -> Engine:
        return create_engine(f"sqlite:///{self.folder}/tenants/{name}.db")

    def do(self, name: str, *statements: Executable) -> None:
        """Execute statements in a tenant."""
        engine = self.engine(name)
        with engine.begin() as connection:
            for each in statements:
                connection.execute(each)
        engine.dispose()

    def add(self, name: str, table: Table, *rows: Mapping[str, Any]) -> None:
        self.do(name, *(insert(table).values(dict(row)) for row in rows))

    def rows(self, name: str, table: Table) -> list[dict[str, Any]]:
        engine = self.engine(name)
        with engine.connect() as connection:
            found = [dict(row) for row in connection.execute(select(table)).mappings()]
        engine.dispose()
        return found


def total(document: Mapping[str, Any], counter: str) -> int:
    """Add up a counter over the executions of a run."""
    return sum(row["counters"].get(counter, 0) for row in document["executions"])
