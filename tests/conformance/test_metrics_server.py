"""`/metrics` and `/health`: always an answer, however the ledger is."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from cronrunner.events import Event, Warned
from cronrunner.metrics import server as server_module
from cronrunner.metrics.server import MetricsServer
from cronrunner.model import LedgerSnapshot, Outcome, Run, RunSummary, Slot, Statistics

HOST = "127.0.0.1"
PATIENT = server_module.PATIENCE.total_seconds()
EMPTY = LedgerSnapshot(
    taken_at=datetime(2026, 11, 21, tzinfo=UTC),
    statistics=(),
    job_totals={},
    durations={},
    last_completed=None,
    last_succeeded=None,
    tenants={"main": 2},
    counters={},
)


def now() -> datetime:
    return datetime.now(UTC)


class Ledger:
    """Something to be read: counts its readings, and can be made to fail, wait and hang."""

    def __init__(self) -> None:
        self.readings = 0
        self.given: dict[str, Any] = {}
        self.error: Exception | None = None
        self.open = threading.Event()
        self.open.set()
        self.delay = 0.0

    def __call__(self) -> LedgerSnapshot:
        self.readings += 1
        given = {"taken_at": now(), **self.given}
        self.open.wait()
        time.sleep(self.delay)
        if self.error is not None:
            raise self.error
        return replace(EMPTY, **given)


Serve = Callable[..., MetricsServer]


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    ledger = Ledger()
    yield ledger
    ledger.open.set()


@pytest.fixture
def emitted() -> list[Event]:
    return []


@pytest.fixture
def serve(ledger: Ledger, emitted: list[Event]) -> Iterator[Serve]:
    servers: list[MetricsServer] = []

    def make(**given: Any) -> MetricsServer:
        options = {"host": HOST, "port": 0, "series_limit": 100, "describe": repr, **given}
        servers.append(MetricsServer(ledger, emit=emitted.append, **options))
        servers[-1].start()
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


class Answer:
    def __init__(self, port: int, path: str, method: str = "GET", **headers: str) -> None:
        started = time.monotonic()
        with closing(http.client.HTTPConnection(HOST, port, timeout=30)) as connection:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            self.body = response.read()
        self.status = response.status
        self.headers = response.headers
        self.seconds = time.monotonic() - started

    @property
    def values(self) -> dict[str, list[float]]:
        families = read_text(self.body.decode())
        return {family.name: [sample.value for sample in family.samples] for family in families}

    @property
    def age(self) -> float:
        return self.values["cronrunner_metrics_age_seconds"][0]

    @property
    def tenants(self) -> list[float]:
        return self.values.get("cronrunner_tenants_discovered", [])


def metrics(server: MetricsServer, **headers: str) -> Answer:
    return Answer(server.port, "/metrics", **headers)


def health(server: MetricsServer) -> tuple[int, dict[str, Any]]:
    answer = Answer(server.port, "/health")
    return answer.status, json.loads(answer.body)


# Answers


def test_each_answer_has_what_the_ledger_says_by_then(serve: Serve, ledger: Ledger) -> None:
    server = serve()
    for tenants in range(20):
        ledger.given = {"tenants": {"main": tenants}}
        answer = metrics(server)
        assert (answer.status, answer.tenants) == (200, [tenants])
        assert answer.age < PATIENT


def test_a_removed_tenants_series_are_gone(serve: Serve, ledger: Ledger) -> None:
    pair = Statistics(
        job="j",
        tenant="acme",
        totals={Outcome.SUCCEEDED: 1},
        last_outcome=Outcome.SUCCEEDED,
        last_run_at=now(),
        last_success_at=now(),
        last_duration_seconds=1,
        consecutive_failures=0,
        smoothed_seconds=1,
    )
    server = serve()
    ledger.given = {"statistics": (pair,)}
    assert b'tenant="acme"' in metrics(server).body
    ledger.given = {"statistics": ()}
    assert b"acme" not in metrics(server).body


def test_openmetrics_is_for_who_asks_for_it(serve: Serve) -> None:
    server = serve()
    for version in ("1.0.0", "abc"):
        accept = f"application/openmetrics-text;version={version},text/plain;version=0.0.4;q=0.5"
        answer = metrics(server, Accept=accept)
        if version == "abc":
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            assert answer.age < PATIENT
        else:
            assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
            names = {family.name for family in read_openmetrics(answer.body.decode())}
            assert {"cronrunner_metrics_age_seconds", "cronrunner_build_info"} <= names


def test_an_answer_is_compressed_for_who_can_read_it(serve: Serve) -> None:
    answer = metrics(serve(), **{"Accept-Encoding": "gzip"})
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.body.startswith(b"\x1f\x8b")


def test_head_gives_the_headers_only(serve: Serve) -> None:
    answer = Answer(serve().port, "/metrics", "HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["Content-Length"]) > 0


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("GET", "/metricsx", 404), ("GET", "/metrics?x=1", 200), ("PUT", "/", 501)],
)
def test_other_paths_and_methods_are_refused(
    serve: Serve, method: str, path: str, status: int
) -> None:
    assert Answer(serve().port, path, method).status == status


def test_requests_are_noted(serve: Serve) -> None:
    noted: list[str] = []
    server = serve(note=noted.append)
    metrics(server)
    health(server)
    assert noted == ['"GET /metrics HTTP/1.1" 200 -', '"GET /health HTTP/1.1" 200 -']


# A ledger that is slow, down or hangs


def test_a_ledger_that_hangs_costs_a_scrape_half_a_second(serve: Serve, ledger: Ledger) -> None:
    server = serve()
    assert metrics(server).tenants == [2]
    ledger.open.clear()
    for _ in range(2):
        answer = metrics(server)
        assert answer.tenants == [2]
        assert answer.seconds < PATIENT + 0.5
        assert answer.age >= PATIENT
    ledger.given = {"tenants": {"main": 9}}
    ledger.open.set()
    assert metrics(server).tenants == [9]


def test_before_the_first_reading_there_is_an_answer_of_infinite_age(
    serve: Serve, ledger: Ledger
) -> None:
    ledger.open.clear()
    answer = metrics(serve())
    assert answer.seconds < PATIENT + 0.5
    assert answer.age == float("inf")
    assert answer.tenants == []
    assert answer.values["cronrunner_build_info"] == [1]


def test_a_ledger_that_is_down_costs_no_wait_and_one_warning(
    serve: Serve, ledger: Ledger, emitted: list[Event]
) -> None:
    server = serve()
    assert metrics(server).tenants == [2]
    ledger.error = ConnectionError("refused")
    for _ in range(3):
        answer = metrics(server)
        assert (answer.status, answer.tenants) == (200, [2])
        assert answer.seconds < PATIENT
    ledger.error = None
    assert metrics(server).age < PATIENT

    text = "the ledger cannot be read for metrics: ConnectionError('refused')"
    assert emitted == [Warned(subject="metrics", text=text)]


def test_requests_at_the_same_time_share_a_reading(serve: Serve, ledger: Ledger) -> None:
    server = serve()
    metrics(server)
    ledger.open.clear()
    before = ledger.readings
    with ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(metrics, server) for _ in range(20)]
        while ledger.readings == before:
            time.sleep(0.01)
        time.sleep(0.2)
        ledger.open.set()
    assert all(answer.result().status == 200 for answer in answers)
    # The one that was under way for the first of them, and one for all others.
    assert ledger.readings - before <= 2


def test_families_over_the_limit_are_warned_of_once(
    serve: Serve, ledger: Ledger, emitted: list[Event]
) -> None:
    pair = Statistics(
        job="j",
        tenant="t",
        totals={},
        last_outcome=Outcome.FAILED,
        last_run_at=now(),
        last_success_at=None,
        last_duration_seconds=1,
        consecutive_failures=0,
        smoothed_seconds=1,
    )
    ledger.given = {"statistics": [replace(pair, tenant=f"t{number}") for number in range(101)]}
    server = serve()
    for _ in range(3):
        assert metrics(server).values["cronrunner_tenant_series_dropped"] == [303]
    assert len(emitted) == 1


# Health


def test_health_tells_of_the_last_run(serve: Serve, ledger: Ledger) -> None:
    at = datetime(2026, 11, 21, 3, tzinfo=UTC)
    run = Run(
        id="01JD8",
        command="run",
        started_at=at,
        scheduled_at=None,
        host="h",
        boot="b",
        pid=1,
        pid_started=1,
        slot=Slot.of_run("01JD8", at),
    )
    last = RunSummary(run=run, finished_at=at, exit_code=4, duration_seconds=1.0)
    ledger.given = {"last_completed": last}
    status, document = health(serve())
    assert document.pop("ledger_age_seconds") < PATIENT
    assert (status, document) == (
        200,
        {
            "status": "ok",
            "last_run": "01JD8",
            "last_completion": "2026-11-21T03:00:00+00:00",
            "last_exit_code": 4,
        },
    )


def test_health_is_unwell_when_the_ledger_was_not_readable_for_too_long(
    serve: Serve, ledger: Ledger
) -> None:
    server = serve(max_age=timedelta(seconds=PATIENT))
    assert health(server)[0] == 200
    ledger.open.clear()
    health(server)
    status, document = health(server)
    assert (status, document["status"]) == (503, "stale")
    assert document["ledger_age_seconds"] > PATIENT


def test_health_is_well_although_each_reading_takes_longer_than_an_answer_waits(
    serve: Serve, ledger: Ledger
) -> None:
    server = serve(max_age=timedelta(seconds=4 * PATIENT))
    ledger.delay = 1.5 * PATIENT
    assert health(server)[0] == 200
    for _ in range(2):
        # Nobody has asked for longer than that.
        time.sleep(4.5 * PATIENT)
        assert health(server)[0] == 200


def test_health_is_unwell_before_anything_was_read(serve: Serve, ledger: Ledger) -> None:
    ledger.error = ConnectionError("refused")
    assert health(serve()) == (
        503,
        {
            "status": "stale",
            "ledger_age_seconds": None,
            "last_run": None,
            "last_completion": None,
            "last_exit_code": None,
        },
    )


# Clients, and the life of the server


def test_silent_clients_hold_up_nobody(serve: Serve) -> None:
    server = serve()
    clients = [socket.create_connection((HOST, server.port)) for _ in range(20)]
    for client in clients[:10]:
        client.send(b"GET /metr")
    assert metrics(server).seconds < PATIENT + 0.5
    for client in clients:
        client.close()


def test_a_silent_client_is_hung_up_on(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module._Handler, "timeout", 0.2)
    with closing(socket.create_connection((HOST, serve().port), timeout=10)) as client:
        assert client.recv(1) == b""


def test_a_client_that_drips_is_hung_up_on(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module._Handler, "timeout", 0.5)
    started = time.monotonic()
    with closing(socket.create_connection((HOST, serve().port), timeout=10)) as client:
        with suppress(ConnectionError):
            for _ in range(50):
                client.send(b"G")
                time.sleep(0.1)
        assert time.monotonic() - started < 3


def test_a_client_that_was_slow_to_ask_gets_a_whole_answer(
    serve: Serve, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module._Handler, "timeout", 3.0)
    ledger.given = {"tenants": {f"server {number}": 1 for number in range(50_000)}}
    with closing(socket.create_connection((HOST, serve().port), timeout=10)) as client:
        client.send(b"GET /metrics HTTP/1.0\r\n")
        time.sleep(2.0)
        client.send(b"\r\n")
        time.sleep(1.5)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.endswith(b"\n")
    assert answer.count(b"\n") > 50_000


def test_a_client_too_many_is_turned_away_at_once(serve: Serve) -> None:
    server = serve()
    clients = [socket.create_connection((HOST, server.port)) for _ in range(server_module._PLACES)]
    one_too_many = socket.create_connection((HOST, server.port), timeout=3)
    with closing(one_too_many), suppress(ConnectionResetError):
        assert one_too_many.recv(1) == b""
    for client in clients:
        client.close()
    for _ in range(100):
        with suppress(http.client.RemoteDisconnected, ConnectionResetError):
            assert metrics(server).status == 200
            return
        time.sleep(0.05)
    pytest.fail("the places were not given back")


def test_a_client_that_goes_away_leaves_no_trace(
    serve: Serve, ledger: Ledger, emitted: list[Event], capfd: pytest.CaptureFixture[str]
) -> None:
    ledger.given = {"tenants": {f"server {number}": 1 for number in range(50_000)}}
    server = serve()
    for _ in range(5):
        with closing(socket.create_connection((HOST, server.port))) as client:
            client.send(b"GET /metrics HTTP/1.0\r\n\r\n")
    assert metrics(server).status == 200
    assert emitted == []
    assert capfd.readouterr() == ("", "")


def test_a_port_that_is_taken_is_an_error(serve: Serve) -> None:
    with pytest.raises(OSError, match="in use"):
        serve(port=serve().port)


def test_it_listens_on_ipv6_too(serve: Serve) -> None:
    server = serve(host="::1")
    with closing(http.client.HTTPConnection("::1", server.port, timeout=5)) as connection:
        connection.request("GET", "/health")
        assert connection.getresponse().status == 200


def test_stopping_frees_the_port_even_while_the_ledger_hangs(
    ledger: Ledger, emitted: list[Event]
) -> None:
    ledger.open.clear()
    options: dict[str, Any] = {"host": HOST, "series_limit": 9, "describe": repr}
    port = 0
    for _ in range(2):
        with MetricsServer(ledger, port=port, emit=emitted.append, **options) as server:
            metrics(server)
            started = time.monotonic()
        assert time.monotonic() - started < 1
        port = server.port
