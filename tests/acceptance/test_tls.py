"""TLS per server: what was asked for is what every session has, and it is never downgraded."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url, text

from cronrunner.databases import Endpoint, mysql
from cronrunner.engines import Engines
from cronrunner.model import Tenant
from tests.acceptance.fleet import Finished, Fleet
from tests.servers import HOST, MariaDB, write_certificates

pytestmark = pytest.mark.xdist_group("tls")

TENANTS = [f"tls_{number}" for number in range(4)]
JOB = """
    @job
    def ask(ctx):
        cipher = ctx.connection.execute(text("SHOW SESSION STATUS LIKE 'Ssl_cipher'")).one()[1]
        return {"encrypted": int(cipher != "")}
"""


@pytest.fixture(scope="module")
def offering() -> Iterator[MariaDB]:
    """A server that offers TLS."""
    with MariaDB(tls=True, general_log=False) as server:
        server.create_databases(TENANTS)
        yield server


@pytest.fixture
def plain(mariadb: MariaDB) -> Iterator[MariaDB]:
    """A server that does not."""
    mariadb.create_databases(TENANTS)
    yield mariadb
    mariadb.drop_databases("tls_")


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Finished]:
    def run(url: str, **keys: Any) -> Finished:
        server = {"url": url, "discover": {"databases": "tls_*"}, "connect_timeout": "5s", **keys}
        return Fleet(tmp_path, {"servers": {"main": server}}, {"tls": JOB}).run("--json")

    return run


class Between:
    """Stands between client and server on an address of its own, and keeps what clients send.

    From the connection `strip_from` on it takes TLS out of what the server offers.
    """

    def __init__(self, server: MariaDB, *, strip_from: int = 1_000, host: str = HOST) -> None:
        self._server = server
        self._strip_from = strip_from
        self._listener = socket.create_server((host, 0))
        self.address = "{}:{}".format(*self._listener.getsockname())
        #: What each client sent.
        self.sent: list[bytearray] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self) -> str:
        return f"mysql+pymysql://{self._server.admin}:{self._server.password}@{self.address}"

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                server = socket.create_connection((HOST, self._server.port))
                sent = bytearray()
                self.sent.append(sent)
                strip = len(self.sent) > self._strip_from
                for pump in (self._listen, self._talk):
                    threading.Thread(
                        target=pump, args=(client, server, sent, strip), daemon=True
                    ).start()

    def _listen(
        self, client: socket.socket, server: socket.socket, sent: bytearray, _: bool
    ) -> None:
        with suppress(OSError), server:
            while data := client.recv(65_536):
                sent += data
                server.sendall(data)

    def _talk(
        self, client: socket.socket, server: socket.socket, _: bytearray, strip: bool
    ) -> None:
        with suppress(OSError), client:
            greeting = bytearray(server.recv(65_536))
            if strip:
                # Four bytes of header, the protocol, the version and a NUL, thread, scramble, filler.
                capabilities = greeting.index(0, 5) + 1 + 4 + 8 + 1
                greeting[capabilities + 1] &= ~0x08
            client.sendall(greeting)
            while data := server.recv(65_536):
                client.sendall(data)


@contextmanager
def between(server: MariaDB, **options: Any) -> Iterator[Between]:
    with closing(Between(server, **options)) as proxy:
        yield proxy


def encrypted(run: Finished) -> list[int]:
    assert run.code == 0, run.document["errors"] or run.document["causes"]
    return [row["counters"]["encrypted"] for row in run.document["executions"]]


@pytest.mark.parametrize("tls", ["auto", "required"])
def test_sessions_are_encrypted_when_the_server_offers_it(
    offering: MariaDB, run: Callable[..., Finished], tls: str
) -> None:
    assert encrypted(run(offering.url(), tls=tls)) == [1, 1, 1, 1]


def test_auto_uses_a_server_without_tls_and_warns_off_the_loopback_only(
    plain: MariaDB, run: Callable[..., Finished]
) -> None:
    done = run(plain.url(), tls="auto")

    assert encrypted(done) == [0, 0, 0, 0]
    assert [line for line in done.log_lines("warned") if "offers no TLS" in line["message"]] == []


def test_auto_warns_when_sessions_off_the_loopback_are_not_encrypted(
    plain: MariaDB, run: Callable[..., Finished]
) -> None:
    with between(plain, host="127.0.0.2") as proxy:
        done = run(proxy.url(), tls="auto")

    assert encrypted(done) == [0, 0, 0, 0]
    (line,) = (each for each in done.log_lines("warned") if "offers no TLS" in each["message"])
    assert line["message"].startswith("server main offers no TLS")


@pytest.mark.parametrize("tls", ["required", "verify"])
def test_without_tls_nothing_is_sent_to_a_server_that_must_have_it(
    plain: MariaDB, run: Callable[..., Finished], tls: str
) -> None:
    with between(plain) as proxy:
        done = run(proxy.url(), tls=tls)

    assert done.code == 4
    assert done.document["executions"] == []
    assert "SSL" in done.document["errors"][0]
    assert [bytes(sent) for sent in proxy.sent] == [b""]


@pytest.mark.one_process("its job remembers something from one tenant to the next")
def test_a_server_that_offered_tls_once_is_not_talked_to_without(
    offering: MariaDB, run: Callable[..., Finished]
) -> None:
    with between(offering, strip_from=1) as proxy:
        done = run(proxy.url(), tls="auto", discover={"list": TENANTS})

    assert done.code == 1
    assert done.document["outcomes"] == {"failed": len(TENANTS)}
    assert all("SSL" in row["error"] for row in done.document["executions"])
    assert len(proxy.sent) == 1 + len(TENANTS)
    assert [bytes(sent) for sent in proxy.sent[1:]] == [b""] * len(TENANTS)


def test_disabled_is_plain_even_when_tls_is_offered(
    offering: MariaDB, run: Callable[..., Finished]
) -> None:
    assert encrypted(run(offering.url(), tls="disabled")) == [0, 0, 0, 0]


def test_verify_accepts_the_right_authority(
    offering: MariaDB, run: Callable[..., Finished]
) -> None:
    assert encrypted(run(offering.url(), tls="verify", tls_ca=str(offering.ca_file))) == [1] * 4


def test_verify_refuses_the_wrong_authority(
    offering: MariaDB, run: Callable[..., Finished], tmp_path: Path
) -> None:
    write_certificates(tmp_path)  # another authority of the same name

    done = run(offering.url(), tls="verify", tls_ca=str(tmp_path / "ca.pem"))

    assert (done.code, done.document["executions"]) == (4, [])
    assert "certificate verify failed" in done.document["errors"][0].lower()


def test_verify_refuses_the_wrong_host_name(
    offering: MariaDB, run: Callable[..., Finished]
) -> None:
    with between(offering, host="127.0.0.2") as proxy:
        done = run(proxy.url(), tls="verify", tls_ca=str(offering.ca_file))

    assert (done.code, done.document["executions"]) == (4, [])
    assert "127.0.0.2" in done.document["errors"][0]


def test_a_server_has_one_context_for_all_its_sessions(
    offering: MariaDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    create = mysql._tls_context

    def counting(endpoint: Endpoint) -> ssl.SSLContext:
        made.append(endpoint)
        return create(endpoint)

    monkeypatch.setattr(mysql, "_tls_context", counting)
    # What the driver would make of its own, for each connection.
    monkeypatch.setattr(ssl, "create_default_context", lambda *_, **__: pytest.fail("one more"))
    engines = Engines({"main": Endpoint(name="main", url=make_url(offering.url()))})
    for name in TENANTS:
        visit = engines.visit(Tenant(name=name, server="main", database=name))
        with visit.engine.connect() as connection:
            status = connection.execute(text("SHOW SESSION STATUS LIKE 'Ssl_cipher'"))
            assert status.one()[1] != ""
        visit.close()

    assert len(made) == 1
