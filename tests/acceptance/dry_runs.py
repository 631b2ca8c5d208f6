"""What tests of dry runs have in common."""

from typing import Any

from tests.acceptance.fleet import Finished, Fleet
from tests.acceptance.small import SLOT
from tests.servers import MariaDB, quote

AT = ("--scheduled-at", SLOT)
DRY = ("run", "--dry-run", "--json")

Content = dict[str, Any]


def ledger_rows(fleet: Fleet) -> dict[str, list[tuple[Any, ...]]]:
    """Return what the ledger holds, but for runs."""
    tables = [
        name for (name,) in fleet.query("SELECT name FROM sqlite_master WHERE type = 'table'")
    ]
    assert {"claims", "executions", "attempts", "statistics", "tenants", "prepared"} <= set(tables)
    return {name: fleet.query(f"SELECT * FROM {name}") for name in tables if name != "runs"}


def bytes_of(fleet: Fleet) -> dict[str, bytes]:
    """Return the files of the tenants."""
    return {path.name: path.read_bytes() for path in (fleet.folder / "tenants").glob("*.db")}


def rows_on(mariadb: MariaDB, prefix: str) -> Content:
    find = (
        "SELECT table_schema, table_name FROM information_schema.tables"
        f" WHERE table_schema LIKE '{prefix}%' ORDER BY 1, 2"
    )
    return {
        f"{database}.{table}": sorted(
            map(repr, mariadb.execute(f"SELECT * FROM {quote(database)}.{quote(table)}"))
        )
        for database, table in mariadb.execute(find)
    }


def changes(finished: Finished) -> dict[tuple[str, str], dict[str, int]]:
    rows = finished.document["executions"]
    return {(row["job"], row["tenant"]): row["counters"] for row in rows}
