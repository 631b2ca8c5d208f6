"""A MySQL server: Oracle's own, not MariaDB."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from tests.servers.database import DatabaseServer, as_user
from tests.servers.process import CACHE

#: Where `scripts/mysql` unpacks a distribution that has it.
_ROOT = CACHE / "mysql"


class MySQL(DatabaseServer):
    """A MySQL server."""

    kind = "mysql"
    defaults: ClassVar = {
        "innodb_redo_log_capacity": "32M",
        "innodb_flush_method": "nosync",
        "skip_log_bin": 1,
        "mysqlx": "OFF",
        "secure_file_priv": "NULL",
    }
    #: Otherwise it makes certificates of its own.
    without_tls: ClassVar = {"tls_version": ""}

    @classmethod
    def command(cls) -> Sequence[str]:
        """Start it by the loader and the libraries that it was built for, without a chroot.

        So it needs no root, and finds the paths that all other programs of a test find.
        """
        loader = next(_ROOT.glob("lib*/ld-linux-*.so.*"), None)
        if loader is None:
            raise RuntimeError("MySQL is not on this machine; run `scripts/mysql`")
        libraries = ":".join(str(folder) for folder in _ROOT.glob("usr/lib/*-linux-gnu"))
        return [
            *(str(loader), "--library-path", libraries, str(_ROOT / "usr/sbin/mysqld")),
            "--no-defaults",
            f"--basedir={_ROOT}/usr",
        ]

    @classmethod
    def install(cls, folder: Path) -> Sequence[str]:
        return [*cls.command(), "--initialize-insecure", f"--datadir={folder}", *as_user()]
