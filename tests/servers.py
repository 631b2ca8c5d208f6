"""Private servers for tests: the real programs, on free ports of the loopback.

Each server has a folder of its own below `.cache/run/`, dies with the process that started it, and
is removed by `remove()`. What a killed test process left behind is swept away by the next one.
"""

import fcntl
import ipaddress
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import pymysql
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

HOST = "127.0.0.1"
CACHE = Path(__file__).resolve().parent.parent / ".cache"

_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_PATH = os.pathsep.join(
    [
        str(CACHE / "servers/usr/bin"),  # what `make servers` unpacks and does not install
        os.environ.get("PATH", os.defpath),
        "/usr/sbin",  # where Debian keeps mariadbd; not on every user's path
    ]
)
# Not pytest's random numbers: those are seeded alike in every worker.
_random = secrets.SystemRandom()


def program(name: str) -> str:
    """Return the path of a program, or fail: a server that is missing is never a skipped test."""
    found = shutil.which(name, path=_PATH)
    if found is None:
        raise RuntimeError(f"{name} is not on this machine; run `make servers`")
    return found


def free_port() -> int:
    """Return a free port below the range that the kernel gives to clients.

    So a server that was stopped finds its port still free when it starts again.
    """
    while True:
        port = _random.randrange(15_000, 32_000)
        with closing(socket.socket()) as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port


class _Process:
    """A program in a folder of its own, which does not outlive the process that starts it."""

    def __init__(self, kind: str) -> None:
        self.folder = _make_folder(kind)
        self.output = self.folder / "output.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError(f"{type(self).__name__} is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Ask the server to end, and wait until it has."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: the server has no say in it."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """SIGSTOP: the kernel still accepts connections, the server says nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def remove(self) -> None:
        """End the server and delete its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _run(self, command: Sequence[str], is_ready: Callable[[], bool]) -> None:
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                # Not preexec_fn, which is unsafe in a process with threads.
                ["setpriv", "--pdeathsig", "KILL", "--", *command],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # An interrupt on the terminal is for the tests, which then stop their servers.
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not is_ready():
            if not self.running or time.monotonic() > deadline:
                self.kill()
                said = self.output.read_text(errors="replace")[-4000:]
                raise RuntimeError(f"{type(self).__name__} did not start:\n{said}")
            time.sleep(0.02)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(how)
            self._process.send_signal(signal.SIGCONT)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One line of the general log: what one connection sent."""

    thread: int
    command: str  # Connect, Query, Init DB, Quit, Prepare, Execute, Reset connection, ...
    argument: str


class MariaDB(_Process):
    """A MariaDB server.

    `options` are written like the server's own: `MariaDB(max_connections=20, innodb_lock_wait_timeout=1)`.
    With `tls=True` it offers TLS with a certificate for 127.0.0.1 and localhost, signed by `ca_file`.
    """

    admin = "root"

    def __init__(
        self, *, tls: bool = False, general_log: bool = True, **options: str | float
    ) -> None:
        super().__init__("mariadb")
        self.port = free_port()
        self.password = secrets.token_hex(8)
        self.general_log_file = self.folder / "general.log"
        self.ca_file = self.folder / "ca.pem"
        self._options: dict[str, str | float] = {
            "max_connections": 500,
            # Small, since a test run has several of these.
            "innodb_buffer_pool_size": "64M",
            "innodb_log_file_size": "16M",
            "general_log": int(general_log),
            **options,
        }
        shutil.copytree(_mariadb_template(), self.folder / "data")
        if tls:
            write_certificates(self.folder)
            self._options |= {
                "ssl_ca": str(self.ca_file),
                "ssl_cert": str(self.folder / "server.pem"),
                "ssl_key": str(self.folder / "server.key"),
            }
        self._write_accounts()
        self.start()

    def start(self) -> None:
        """Start on the same port with the same data; a no-op while it runs."""
        if self.running:
            return
        command = [
            program("mariadbd"),
            "--no-defaults",
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
            # A killed server loses nothing by this, a crashed machine would.
            "--debug-no-sync",
            # io_uring's locked memory is scarce in containers.
            "--innodb-use-native-aio=0",
            *_as_user(),
            *(f"--{name.replace('_', '-')}={value}" for name, value in self._options.items()),
        ]
        self._run(command, self._answers)

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
        self.execute(f"CREATE OR REPLACE USER %s@'{HOST}' IDENTIFIED BY %s", (name, password))
        resources = " ".join(f"{limit.upper()} {value}" for limit, value in limits.items())
        extra = f" WITH {resources}" if resources else ""
        on = on.replace("%", "%%")  # a wildcard of GRANT, not a place for an argument
        self.execute(f"GRANT {privileges} ON {on} TO %s@'{HOST}'{extra}", (name,))

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
            entries = list(_parse_general_log(log.read().decode(errors="replace")))
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

    def _write_accounts(self) -> None:
        (self.folder / "accounts.sql").write_text(
            # Without the anonymous users, and reachable over the loopback by number only.
            f"DELETE FROM mysql.global_priv WHERE User = '' OR Host NOT IN ('localhost', '{HOST}');\n"
            "FLUSH PRIVILEGES;\n"
            f"CREATE USER IF NOT EXISTS {self.admin}@'{HOST}';\n"
            f"GRANT ALL ON *.* TO {self.admin}@'{HOST}' WITH GRANT OPTION;\n"
            f"ALTER USER {self.admin}@'{HOST}' IDENTIFIED BY '{self.password}';\n"
            f"ALTER USER {self.admin}@localhost IDENTIFIED BY '{self.password}';\n"
        )


class Prometheus(_Process):
    """A Prometheus server which runs the given configuration (its own YAML; JSON will do)."""

    def __init__(self, configuration: str | Mapping[str, Any]) -> None:
        super().__init__("prometheus")
        self.port = free_port()
        if not isinstance(configuration, str):
            configuration = json.dumps(configuration)
        (self.folder / "prometheus.yml").write_text(configuration)
        self.start()

    @classmethod
    def scraping(cls, *targets: str, job: str = "cronrunner", every: str = "1s") -> Self:
        """Start one that scrapes `host:port` targets."""
        return cls(
            {
                "global": {"scrape_interval": every, "scrape_timeout": every},
                "scrape_configs": [
                    {"job_name": job, "static_configs": [{"targets": list(targets)}]}
                ],
            }
        )

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def start(self) -> None:
        """Start on the same port with the same data; a no-op while it runs."""
        if self.running:
            return
        command = [
            program("prometheus"),
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            f"--web.listen-address={HOST}:{self.port}",
            "--log.level=warn",
        ]
        self._run(command, self._answers)

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Evaluate an instant query: labels and value of each series."""
        found = self._get("/api/v1/query", query=expression)["result"]
        return [(series["metric"], float(series["value"][1])) for series in found]

    def await_query(
        self, expression: str, seconds: float = 20.0
    ) -> list[tuple[dict[str, str], float]]:
        """Repeat a query until it has a result; scraping takes an interval or two."""
        deadline = time.monotonic() + seconds
        while not (found := self.query(expression)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{expression} has no series; targets: {self.targets()}")
            time.sleep(0.1)
        return found

    def targets(self) -> list[dict[str, Any]]:
        """Return the active targets; `health` is `up`, `down` or `unknown`, `lastError` says why."""
        active: list[dict[str, Any]] = self._get("/api/v1/targets", state="active")["activeTargets"]
        return active

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=1):
                return True
        except urllib.error.HTTPError as refusal:
            refusal.close()
        except OSError:
            pass
        return False

    def _get(self, path: str, **parameters: str) -> dict[str, Any]:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}{path}?{query}", timeout=10) as answer:
            data: dict[str, Any] = json.load(answer)["data"]
            return data


class SilentServer:
    """Accepts every connection and never says a word, as a hung database does."""

    def __init__(self) -> None:
        self._listener = socket.create_server((HOST, 0), backlog=512)
        self._accepted: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True, name="silent-server")
        self._thread.start()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def connections(self) -> int:
        """How many have connected so far."""
        return len(self._accepted)

    def url(self, user: str = "nobody", password: str = "none", database: str = "") -> str:
        return f"mysql+pymysql://{user}:{password}@{HOST}:{self.port}/{database}".rstrip("/")

    def close(self) -> None:
        # Closing alone does not wake up a thread in accept().
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for accepted in self._accepted:
            accepted.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self._accepted.append(self._listener.accept()[0])


def promtool(*arguments: str, input: str | None = None) -> subprocess.CompletedProcess[str]:  # noqa: A002 - as in subprocess.run
    """Run promtool; the caller looks at `returncode`, `stdout` and `stderr`."""
    return subprocess.run(
        [program("promtool"), *arguments],
        input=input,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def quote(name: str) -> str:
    """Quote an identifier for MariaDB."""
    return "`" + name.replace("`", "``") + "`"


def write_certificates(folder: Path) -> None:
    """Write `ca.pem`, and `server.pem` and `server.key` for the loopback, signed by that CA."""
    ca_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name, server_name = (
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        for name in ("cronrunner test CA", "localhost")
    )
    now = datetime.now(UTC)

    def begin(name: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(ca_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=30))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), False
            )
        )

    ca = (
        begin(ca_name, ca_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_certificate_signing(), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(HOST))]
    server = (
        begin(server_name, server_key)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    (folder / "server.pem").write_bytes(server.public_bytes(serialization.Encoding.PEM))
    (folder / "server.key").write_bytes(
        server_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def _certificate_signing() -> x509.KeyUsage:
    # Python 3.13 verifies strictly and refuses a CA that does not say what its key is for.
    return x509.KeyUsage(
        key_cert_sign=True,
        crl_sign=True,
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


_LOG_LINE = re.compile(
    r"^(?:\d{6}\s+\d{1,2}:\d\d:\d\d)?\t\s*(?P<thread>\d+) (?P<command>[A-Z][\w ]*)\t(?P<argument>.*)$"
)


def _parse_general_log(text: str) -> Iterator[LogEntry]:
    """Yield entries; a line that begins none continues the statement before it."""
    begun: re.Match[str] | None = None
    argument: list[str] = []
    for line in text.split("\n"):
        match = _LOG_LINE.match(line)
        if match is None:
            argument.append(line)
            continue
        if begun is not None:
            yield _entry(begun, argument)
        begun, argument = match, [match["argument"]]
    if begun is not None:
        yield _entry(begun, argument)


def _entry(begun: re.Match[str], argument: list[str]) -> LogEntry:
    return LogEntry(
        thread=int(begun["thread"]),
        command=begun["command"],
        argument="\n".join(argument).rstrip("\n"),
    )


def _as_user() -> list[str]:
    # MariaDB refuses to run as root unless told so. Its -core packages bring no user, and another
    # could not reach a checkout below /root.
    return ["--user=root"] if os.geteuid() == 0 else []


def _mariadb_template() -> Path:
    """Return a data folder to copy, made once per version of the server."""
    version = subprocess.run(
        [program("mariadbd"), "--no-defaults", "--version"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    name = re.sub(r"[^\w.]+", "-", version.partition("Ver ")[2]).strip("-")[:60]
    template = CACHE / "templates" / name
    with _locked(CACHE / "templates.lock"):
        if not template.exists():
            unfinished = template.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            _install_mariadb(unfinished)
            unfinished.rename(template)
    return template


def _install_mariadb(folder: Path) -> None:
    command = [
        program("mariadb-install-db"),
        "--no-defaults",
        f"--datadir={folder}",
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
        "--innodb-log-file-size=16M",
        *_as_user(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"mariadb-install-db failed:\n{done.stdout}\n{done.stderr}")


def _make_folder(kind: str) -> Path:
    _sweep()
    folder = CACHE / "run" / f"{os.getpid()}-{kind}-{secrets.token_hex(3)}"
    folder.mkdir(parents=True)
    return folder


def _sweep() -> None:
    """Delete the folders of test processes which are gone; their servers died with them."""
    for folder in (CACHE / "run").glob("*-*"):
        if not Path("/proc", folder.name.partition("-")[0]).exists():
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
