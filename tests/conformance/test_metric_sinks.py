"""What every sink does, with the receivers that it meets: good, broken, slow and gone."""

import base64
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Protocol

import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from cronrunner.events import SinkFailed
from cronrunner.metrics.families import Payload
from cronrunner.metrics.sinks import (
    MetricsSink,
    Pushgateway,
    SinkError,
    Textfile,
    deliver,
)
from cronrunner.model import LedgerSnapshot, Outcome, Statistics
from tests.servers import HOST, SilentServer, free_port, promtool

AT = datetime(2026, 11, 21, tzinfo=UTC)
TIMEOUT = timedelta(seconds=0.5)
#: What a sink may take beyond its timeout.
SLACK_SECONDS = 0.5
PASSWORD = "p@ss/word"


def payload(*tenants: str) -> Payload:
    pairs = [
        Statistics(
            job=job,
            tenant=tenant,
            totals={Outcome.SUCCEEDED: 1},
            last_outcome=Outcome.SUCCEEDED,
            last_run_at=AT,
            last_success_at=AT,
            last_duration_seconds=0.1,
            consecutive_failures=0,
            smoothed_seconds=0.1,
        )
        for tenant in tenants
        for job in ("pack.first", "pack.second")
    ]
    snapshot = LedgerSnapshot(
        taken_at=AT,
        statistics=pairs,
        job_totals={("pack.first", "succeeded"): 1, ("pack.second", "failed"): 2},
        durations={"pack.first": ([1] * 17, 2.5), "pack.second": ([0] * 17, 0)},
        last_completed=None,
        last_succeeded=None,
        tenants={"main": len(tenants)},
        counters={},
    )
    return Payload(snapshot=snapshot, series_limit=1000)


# Receivers


class Gateway:
    """A Pushgateway, as far as a push sees of it; or something in its place that is broken."""

    def __init__(self, behaviour: str = "good") -> None:
        self.behaviour = behaviour
        self.groups: dict[str, str] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.ended = threading.Event()
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                gateway.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._server.server_port}"

    def close(self) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        headers = dict(request.headers)
        self.requests.append((request.command, request.path, headers))
        body = request.rfile.read(int(headers["Content-Length"]))
        match self.behaviour:
            case "good":
                code, text = self._put(request.path, body.decode())
                request.send_response(code)
                request.end_headers()
                request.wfile.write(text.encode())
            case "drips":
                # Each byte begins the timeout of a socket anew.
                while not self.ended.wait(0.1):
                    request.wfile.write(b"x")
            case "garbage":
                request.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")
            case code_text:
                code = int(code_text)
                request.send_response(code)
                request.send_header("Location", f"{self.url}/other")
                request.end_headers()
                request.wfile.write(b"the disk is full")

    def _put(self, path: str, text: str) -> tuple[int, str]:
        """As the real one does: the group's labels replace those of the same name.

        Then no two series may be alike.
        """
        _, _, *parts = path.split("/")
        group = dict(zip(parts[::2], parts[1::2], strict=True))
        lines, seen = [], set()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = {**sample.labels, **group}
                series = (sample.name, *sorted(labels.items()))
                if series in seen:
                    return 400, f"{series} was collected before"
                seen.add(series)
                lines.append(f"{series} {sample.value}")
        self.groups[path] = text
        return 200, ""


class Memory:
    """The fake of tests that are not about sinks."""

    name = "memory"

    def __init__(self, *, fails: str | None = None) -> None:
        self.fails = fails
        self.text = ""

    def deliver(self, payload: Payload) -> None:
        if self.fails:
            raise SinkError(self.fails)
        self.text = generate_latest(payload.collector()).decode()


class Rig(Protocol):
    """A sink, and what the test knows of its receiver."""

    @property
    def sink(self) -> MetricsSink: ...

    def delivered(self) -> str:
        """Return the text that the receiver has."""

    def broken(self) -> Iterator[MetricsSink]:
        """Yield sinks whose receivers refuse."""

    def hanging(self) -> Iterator[MetricsSink]:
        """Yield sinks whose receivers do not come to an end."""


@dataclass
class PushgatewayRig:
    folder: Path
    silent: SilentServer
    gateways: list[Gateway] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gateway = self.make("good")
        self.sink = self.pushing(self.gateway)

    def make(self, behaviour: str) -> Gateway:
        self.gateways.append(Gateway(behaviour))
        return self.gateways[-1]

    def pushing(self, gateway: Gateway) -> Pushgateway:
        return Pushgateway(url=gateway.url, timeout=TIMEOUT)

    def delivered(self) -> str:
        (text,) = self.gateway.groups.values()
        return text

    def broken(self) -> Iterator[MetricsSink]:
        for behaviour in ("500", "307", "garbage"):
            yield self.pushing(self.make(behaviour))
        yield Pushgateway(url=f"http://{HOST}:{free_port()}", timeout=TIMEOUT)
        yield Pushgateway(url="http://[", timeout=TIMEOUT)
        yield Pushgateway(url=f"http://cron:p%40ss%2Fword@{HOST}:{free_port()}", timeout=TIMEOUT)

    def hanging(self) -> Iterator[MetricsSink]:
        yield Pushgateway(url=f"http://{HOST}:{self.silent.port}", timeout=TIMEOUT)
        yield self.pushing(self.make("drips"))


@dataclass
class TextfileRig:
    folder: Path
    silent: SilentServer
    gateways: list[Gateway] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.path = self.folder / "cronrunner.prom"
        self.sink = Textfile(path=self.path, timeout=TIMEOUT)

    def delivered(self) -> str:
        return self.path.read_text()

    def broken(self) -> Iterator[MetricsSink]:
        yield Textfile(path=self.folder / "no such folder" / "x.prom", timeout=TIMEOUT)
        occupied = self.folder / "folder.prom"
        occupied.mkdir()
        yield Textfile(path=occupied, timeout=TIMEOUT)

    def hanging(self) -> Iterator[MetricsSink]:
        # Opening a pipe that nobody reads blocks, as a file server that is gone does.
        os.mkfifo(self.folder / f".hanging.prom.{os.getpid()}")
        yield Textfile(path=self.folder / "hanging.prom", timeout=TIMEOUT)


@dataclass
class MemoryRig:
    folder: Path
    silent: SilentServer
    gateways: list[Gateway] = field(default_factory=list)
    sink: Memory = field(default_factory=Memory)

    def delivered(self) -> str:
        return self.sink.text

    def broken(self) -> Iterator[MetricsSink]:
        yield Memory(fails="the memory is full")

    def hanging(self) -> Iterator[MetricsSink]:
        yield from ()


RIGS: dict[str, Callable[..., PushgatewayRig | TextfileRig | MemoryRig]] = {
    "pushgateway": PushgatewayRig,
    "textfile": TextfileRig,
    "memory": MemoryRig,
}


@pytest.fixture(params=RIGS)
def rig(
    request: pytest.FixtureRequest, tmp_path: Path, silent_server: SilentServer
) -> Iterator[Rig]:
    made = RIGS[request.param](tmp_path, silent_server)
    yield made
    for gateway in made.gateways:
        gateway.close()


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with closing(Gateway()) as gateway:
        yield gateway


# Every sink


def test_every_series_arrives_and_promtool_finds_nothing(rig: Rig) -> None:
    rig.sink.deliver(payload("acme", "globex"))

    text = rig.delivered()
    for job in ("pack.first", "pack.second"):
        for tenant in ("acme", "globex"):
            wanted = {f'tenant="{tenant}"', f'job="{job}"'}
            (line,) = [
                line
                for line in text.splitlines()
                if line.startswith("cronrunner_tenant_job_last_run_timestamp_seconds{")
                and all(part in line for part in wanted)
            ]
            assert float(line.split()[-1]) == AT.timestamp()
    checked = promtool("check", "metrics", input=text)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_a_delivery_replaces_the_one_before(rig: Rig) -> None:
    rig.sink.deliver(payload("acme", "globex"))
    rig.sink.deliver(payload("globex"))
    assert "acme" not in rig.delivered()
    assert "globex" in rig.delivered()


def test_a_receiver_that_refuses_is_a_sink_error(rig: Rig) -> None:
    for sink in rig.broken():
        started = time.monotonic()
        with pytest.raises(SinkError) as raised:
            sink.deliver(payload("acme"))
        assert time.monotonic() - started < TIMEOUT.total_seconds() + SLACK_SECONDS
        assert str(raised.value)
        assert not any(form in str(raised.value) for form in (PASSWORD, "p%40ss", "cron:"))


def test_a_receiver_that_hangs_costs_the_timeout_and_no_more(rig: Rig) -> None:
    for sink in rig.hanging():
        started = time.monotonic()
        with pytest.raises(SinkError):
            sink.deliver(payload("acme"))
        assert time.monotonic() - started < TIMEOUT.total_seconds() + SLACK_SECONDS


def test_a_sink_that_failed_delivers_when_its_receiver_is_back(rig: Rig) -> None:
    for sink in rig.broken():
        with pytest.raises(SinkError):
            sink.deliver(payload("acme"))
    rig.sink.deliver(payload("globex"))
    assert "globex" in rig.delivered()


def test_a_failure_keeps_no_other_sink_from_its_delivery(rig: Rig) -> None:
    sinks = [*rig.broken(), Memory(fails="no"), rig.sink]
    failed = list(deliver(sinks, payload("acme")))
    assert len(failed) == len(sinks) - 1
    assert failed[-1] == SinkFailed(sink="memory", error="no")
    assert "acme" in rig.delivered()


# The Pushgateway


def test_a_push_puts_one_group(gateway: Gateway) -> None:
    sink = Pushgateway(url=gateway.url + "/", job="nightly")
    sink.deliver(payload("acme"))
    ((method, path, _),) = gateway.requests
    assert (method, path) == ("PUT", "/metrics/job/nightly")


def test_jobs_stay_apart_although_the_group_has_a_job_of_its_own(gateway: Gateway) -> None:
    Pushgateway(url=gateway.url).deliver(payload("acme"))
    (text,) = gateway.groups.values()
    assert 'exported_job="pack.first"' in text
    assert '{job="' not in text
    assert ',job="' not in text


def test_a_push_authenticates_itself_when_its_url_says_how(gateway: Gateway) -> None:
    url = gateway.url.replace("http://", "http://cron:p%40ss%2Fword@")
    Pushgateway(url=url).deliver(payload("acme"))
    token = gateway.requests[0][2]["Authorization"].removeprefix("Basic ")
    assert base64.b64decode(token).decode() == f"cron:{PASSWORD}"


def test_the_gateways_own_words_are_in_the_error() -> None:
    with closing(Gateway("500")) as gateway, pytest.raises(SinkError) as raised:
        Pushgateway(url=gateway.url).deliver(payload("acme"))
    address = gateway.url.removeprefix("http://")
    assert str(raised.value) == f"{address} answered 500: the disk is full"


# The text file


def test_the_file_is_readable_by_everybody_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "cronrunner.prom"
    before = os.umask(0o077)
    try:
        Textfile(path=path).deliver(payload("acme"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "cronrunner.prom"
    sink = Textfile(path=path)
    large, small = (payload(*(f"t{n}" for n in range(count))) for count in (200, 1))
    large = replace(large, series_limit=10_000)
    whole = set()
    for one in (large, small):
        sink.deliver(one)
        whole.add(path.read_bytes())
    ended = threading.Event()
    seen: set[bytes] = set()

    def read() -> None:
        while not ended.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(20):
        sink.deliver(large)
        sink.deliver(small)
    ended.set()
    reader.join()
    assert seen <= whole


def test_nothing_is_left_beside_the_file(tmp_path: Path) -> None:
    Textfile(path=tmp_path / "cronrunner.prom").deliver(payload("acme"))
    (tmp_path / "folder.prom").mkdir()
    with pytest.raises(SinkError, match="IsADirectoryError"):
        Textfile(path=tmp_path / "folder.prom").deliver(payload("acme"))
    assert {path.name for path in tmp_path.iterdir()} == {"cronrunner.prom", "folder.prom"}


def test_making_the_text_takes_no_longer_than_the_timeout_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()
    monkeypatch.setattr(Payload, "collector", lambda *_, **__: ended.wait(20))
    started = time.monotonic()
    with pytest.raises(SinkError, match="not delivered within 500ms"):
        Textfile(path=tmp_path / "cronrunner.prom", timeout=TIMEOUT).deliver(payload("acme"))
    assert time.monotonic() - started < TIMEOUT.total_seconds() + SLACK_SECONDS
    ended.set()


# What receivers do with it


def test_the_alerts_of_the_docs_are_rules_that_prometheus_takes(tmp_path: Path) -> None:
    docs = (Path(__file__).parent.parent.parent / "docs/metrics.md").read_text()
    (rules,) = re.findall(r"```yaml\n(groups:.*?)```", docs, re.DOTALL)
    (tmp_path / "rules.yaml").write_text(rules)
    checked = promtool("check", "rules", str(tmp_path / "rules.yaml"))
    assert (checked.returncode, checked.stderr) == (0, "")
    known = (Path(__file__).parent.parent / "golden/metrics.txt").read_text().split()
    assert set(re.findall(r"cronrunner_\w+", rules)) <= set(known)
