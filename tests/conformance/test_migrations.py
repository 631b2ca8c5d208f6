"""The ledger's tables come to be what the code believes them to be."""

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from cronrunner.errors import LedgerError
from cronrunner.ledger import open_engine
from cronrunner.ledger.schema import HEAD, migrate
from cronrunner.ledger.tables import metadata
from tests.conformance.conftest import ROOT, LedgerDatabase

NOT_IMPORTED = """
import sys
from sqlalchemy import make_url
from cronrunner.databases import Endpoint
from cronrunner.ledger import open_engine
from cronrunner.ledger.store import Ledger
from datetime import UTC, datetime
Ledger(
    open_engine(Endpoint(name="ledger", url=make_url(sys.argv[1]))),
    clock=lambda: datetime.now(UTC),
).close()
print("alembic" in sys.modules)
"""


def test_the_migrated_schema_is_that_of_the_tables(database: LedgerDatabase) -> None:
    engine = open_engine(database.endpoint)
    migrate(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        differences = compare_metadata(context, metadata)
    engine.dispose()

    assert differences == []


def test_what_is_migrated_already_is_left_alone(database: LedgerDatabase) -> None:
    for _ in range(2):
        database.open().close()

    assert database.rows("SELECT version_num FROM alembic_version") == [(HEAD,)]


def test_alembic_is_imported_only_when_there_is_something_to_migrate(
    database: LedgerDatabase,
) -> None:
    said = [
        subprocess.run(
            [sys.executable, "-c", NOT_IMPORTED, database.url],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout.strip()
        for _ in range(2)
    ]

    assert said == ["True", "False"]


def test_processes_that_meet_a_new_ledger_at_once_take_turns(database: LedgerDatabase) -> None:
    processes = [database.process(f"p{n}", 1) for n in range(3)]
    answers = [process.communicate("go\ngo\n", timeout=60)[0].split("\n") for process in processes]

    assert [process.returncode for process in processes] == [0, 0, 0]
    assert [answer[0] for answer in answers] == ["ready"] * 3
    assert database.rows("SELECT version_num FROM alembic_version") == [(HEAD,)]
    assert database.rows("SELECT count(*) FROM runs") == [(3,)]


def test_a_ledger_of_a_later_version_is_refused(database: LedgerDatabase) -> None:
    database.open()
    database.execute("UPDATE alembic_version SET version_num = '9999'")

    with pytest.raises(LedgerError, match="of version 9999, which this version does not know"):
        database.open()


OPENING = """
import sys
from sqlalchemy import make_url
from cronrunner.databases import Endpoint
from cronrunner.ledger import open_engine
for line in sys.stdin:
    engine = open_engine(Endpoint(name="ledger", url=make_url(line.strip())))
    with engine.connect() as connection:
        print(connection.exec_driver_sql("PRAGMA journal_mode").scalar_one(), flush=True)
    engine.dispose()
"""


def test_processes_that_open_a_new_file_at_once_all_get_it(tmp_path: Path) -> None:
    """The change to WAL is the one lock for which SQLite itself does not wait."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPENING],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        for _ in range(4)
    ]
    said = []
    for number in range(80):
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(f"sqlite:///{tmp_path}/{number}.db\n")
        for process in processes:
            assert process.stdout is not None
            said.append(process.stdout.readline())
    for process in processes:
        process.communicate(timeout=30)

    assert said == ["wal\n"] * 320
