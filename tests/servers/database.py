"""What MySQL and MariaDB servers have in common."""

import os
import re
import secrets
import shutil
import subprocess
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import pymysql

from tests.servers.certificates import write_certificates
from tests.servers.general_log import LogEntry, parse_general_log
from tests.servers.process import CACHE, HOST, Process, free_port, locked


class DatabaseServer(Process):
    """A server of the MySQL family.

    `options` are written like the server's own: `MariaDB(max_connections=20, innodb_lock_wait_timeout=1)`.
    With `tls=True` it offers TLS with a certificate for 127.0.0.1 and localhost, signed by `ca_file`.
    """

    admin = "root"

    #: What each kind says of itself.
    kind: ClassVar[str]
    defaults: ClassVar[Mapping[str, str | float]]
    without_tls: ClassVar[Mapping[str, str | float]] = {}

    def __init__(
        self, *, tls: bool = False, general_log: bool = True, **options: str | float
    ) -> None:
        super().__init__(self.kind)
        self.port = free_port()
        self.password = secrets.token_hex(8)
        self.general_log_file = self.folder / "general.log"
        self.ca_file = self.folder / "ca.pem"
        self._options: dict[str, str | float] = {
            "max_connections": 500,
            # Small, since a test run has several of these.
            "innodb_buffer_pool_size": "64M",
            "general_log": int(general_log),
            **self.defaults,
            **options,
        }
        shutil.copytree(self._template(), self.folder / "data")
        if tls:
            write_certificates(self.folder)
            self._options |= {
                "ssl_ca": str(self.ca_file),
                "ssl_cert": str(self.folder / "server.pem"),
                "ssl_key": str(self.folder / "server.key"),
            }
        else:
            self._options |= self.without_tls
        accounts = self._accounts()
        (self.folder / "accounts.sql").write_text("".join(f"{line};\n" for line in accounts))
        self.start()

    def start(self) -> None:
        """Start on the same port with the same data; a no-op while it runs."""
        if self.running:
            return
        command = [
            *self.command(),
            f"--datadir={self.folder}/data",
            # A server that starts removes the temporary tables of all others in its folder.
            f"--tmpdir={self.folder}/data",
            f"--init-file={self.folder}/accounts.sql",
            f"--bind-address={HOST}",
            f"--port={self.port}",
            "--socket=mysql.sock",  # relative to the data: paths of sockets are short
            "--pid-file=mysql.pid",
            "--skip-name-resolve",
            "--character-set-server=utf8mb4",
            "--log-output=FILE",
            f"--general-log-file={self.general_log_file}",
            # io_uring's locked memory is scarce in containers.
            "--innodb-use-native-aio=0",
            *as_user(),
            *(f"--{name.replace('_', '-')}={value}" for name, value in self._options.items()),
        ]
        self._run(command, self._answers)

    @classmethod
    def command(cls) -> Sequence[str]:
        """Return what starts the server's program without any defaults, before its options."""
        raise NotImplementedError

    @classmethod
    def install(cls, folder: Path) -> Sequence[str]:
        """Return what makes a data folder in an empty one."""
        raise NotImplementedError

    def _accounts(self) -> Iterator[str]:
        """Say who may log in: the administrator alone, over the loopback by number only."""
        yield f"CREATE USER IF NOT EXISTS {self.admin}@'{HOST}'"
        yield f"GRANT ALL ON *.* TO {self.admin}@'{HOST}' WITH GRANT OPTION"
        for host in (HOST, "localhost"):
            yield f"ALTER USER {self.admin}@'{host}' IDENTIFIED BY '{self.password}'"

    def url(
        self, user: str | None = None, password: str | None = None, database: str | None = None
    ) -> str:
        """Return the server's (or a database's) URL, for the administrator if nobody else."""
        if user is None:
            user, password = self.admin, self.password
        secret = "" if password is None else ":" + urllib.parse.quote(password, safe="")
        path = "" if database is None else "/" + urllib.parse.quote(database, safe="")
        return (
            f"mysql+pymysql://{urllib.parse.quote(user, safe='')}{secret}@{HOST}:{self.port}{path}"
        )

    def connect(
        self,
        user: str | None = None,
        password: str | None = None,
        database: str | None = None,
        **options: Any,
    ) -> pymysql.connections.Connection:
        """Return an autocommitting driver connection, the administrator's unless told otherwise."""
        if user is None:
            user, password = self.admin, self.password
        settings: dict[str, Any] = {
            "connect_timeout": 10,
            "read_timeout": 60,
            "autocommit": True,
            "ssl_disabled": True,
            **options,
        }
        return pymysql.connect(
            host=HOST,
            port=self.port,
            user=user,
            password=password or "",
            database=database,
            **settings,
        )

    def execute(
        self, sql: str, arguments: object = None, *, database: str | None = None
    ) -> list[tuple[Any, ...]]:
        """Execute one statement as the administrator and return its rows."""
        with closing(self.connect(database=database)) as connection, connection.cursor() as cursor:
            cursor.execute(sql, arguments)
            return list(cursor.fetchall())

    def execute_script(self, statements: Iterable[str], *, database: str | None = None) -> None:
        """Execute many statements over one connection."""
        with closing(self.connect(database=database)) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def create_databases(self, names: Iterable[str], *schema: str) -> None:
        """Create databases, each with the same `schema`: statements that name no database."""

        def statements() -> Iterator[str]:
            for name in names:
                yield f"CREATE DATABASE {quote(name)}"
                yield f"USE {quote(name)}"
                yield from schema

        self.execute_script(statements())

    def drop_databases(self, prefix: str) -> None:
        """Drop the databases whose names begin with `prefix`."""
        names = [name for (name,) in self.execute("SHOW DATABASES") if name.startswith(prefix)]
        self.execute_script(f"DROP DATABASE IF EXISTS {quote(name)}" for name in names)

    def create_user(
        self,
        name: str,
        password: str,
        *,
        on: str = "*.*",
        privileges: str = "ALL PRIVILEGES",
        **limits: int,
    ) -> None:
        """Create a user and grant it something; `limits` like `max_user_connections=3`."""
        resources = " ".join(f"{limit.upper()} {value}" for limit, value in limits.items())
        extra = f" WITH {resources}" if resources else ""
        on = on.replace("%", "%%")  # a wildcard of GRANT, not a place for an argument
        self.execute(f"DROP USER IF EXISTS %s@'{HOST}'", (name,))
        self.execute(f"CREATE USER %s@'{HOST}' IDENTIFIED BY %s{extra}", (name, password))
        self.execute(f"GRANT {privileges} ON {on} TO %s@'{HOST}'", (name,))

    def process_list(self) -> list[dict[str, Any]]:
        """Return the connections but the asking one: id, user, host, db, command, time, state, info."""
        columns = ("id", "user", "host", "db", "command", "time", "state", "info")
        rows = self.execute(
            f"SELECT {', '.join(columns)} FROM information_schema.processlist"
            " WHERE id <> CONNECTION_ID() AND command <> 'Daemon'"
        )
        return [dict(zip(columns, row, strict=True)) for row in rows]

    def log_position(self) -> int:
        """Return where the general log ends now: `general_log(since=...)` reads on from there."""
        return self.general_log_file.stat().st_size if self.general_log_file.exists() else 0

    def general_log(self, *, since: int = 0, user: str | None = None) -> list[LogEntry]:
        """Return what connections sent, in order; of one user's connections only, if named.

        Only connections that were opened after `since` are known to be somebody's. `Quit` is written
        a moment after the client has closed.
        """
        with self.general_log_file.open("rb") as log:
            log.seek(since)
            entries = list(parse_general_log(log.read().decode(errors="replace")))
        if user is None:
            return entries
        theirs = {
            entry.thread
            for entry in entries
            if entry.command == "Connect" and entry.argument.startswith(f"{user}@")
        }
        return [entry for entry in entries if entry.thread in theirs]

    def _answers(self) -> bool:
        try:
            self.connect(connect_timeout=1).close()
        except pymysql.MySQLError:
            return False
        return True

    @classmethod
    def _template(cls) -> Path:
        """Return a data folder to copy, made once per version of the server."""
        version = _output([*cls.command(), "--version"])
        name = re.sub(r"[^\w.]+", "-", version.partition("Ver ")[2]).strip("-")[:60]
        template = CACHE / "templates" / f"{cls.kind}-{name}"
        with locked(CACHE / "templates.lock"):
            if not template.exists():
                unfinished = template.with_suffix(".unfinished")
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir(parents=True)
                _output(cls.install(unfinished))
                unfinished.rename(template)
        return template


def as_user() -> list[str]:
    """Return the option that lets a server run as root, if we do.

    They refuse to unless told so. The packages of programs alone bring no user, and another could
    not reach a checkout below /root.
    """
    return ["--user=root"] if os.geteuid() == 0 else []


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def quote(name: str) -> str:
    """Quote an identifier for MySQL and MariaDB."""
    return "`" + name.replace("`", "``") + "`"
