"""A MariaDB server."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from tests.servers.database import DatabaseServer, as_user
from tests.servers.process import HOST, program


class MariaDB(DatabaseServer):
    """A MariaDB server."""

    kind = "mariadb"
    defaults: ClassVar = {
        "innodb_log_file_size": "16M",
        # A killed server loses nothing by this, a crashed machine would.
        "debug_no_sync": 1,
    }

    @classmethod
    def command(cls) -> Sequence[str]:
        return [program("mariadbd"), "--no-defaults"]

    @classmethod
    def install(cls, folder: Path) -> Sequence[str]:
        return [
            program("mariadb-install-db"),
            "--no-defaults",
            f"--datadir={folder}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--innodb-log-file-size=16M",
            *as_user(),
        ]

    def _accounts(self) -> Iterator[str]:
        # It comes with anonymous users, and a root of other hosts.
        yield f"DELETE FROM mysql.global_priv WHERE User = '' OR Host NOT IN ('localhost', '{HOST}')"
        yield "FLUSH PRIVILEGES"
        yield from super()._accounts()
