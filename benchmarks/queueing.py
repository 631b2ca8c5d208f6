"""One message per tenant: ``python -m benchmarks.queueing POOL URL TENANTS WORKERS BROKER``.

Celery's worker is started, given work until all of it is awake, and measured from the first
message to the last answer to the broker. Prints the seconds, and the CPU seconds of whoever
sends and of the worker with all its processes.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sqlalchemy import NullPool, create_engine, make_url

from benchmarks.measuring import python
from tests.servers import HOST, free_port
from tests.servers.process import Process, program

#: Where Celery's own queue and what is at work stand in Redis.
_WAITING, _AT_WORK = "celery", "unacked"
_WARM = 32
_POLL_SECONDS = 0.005
_LIMIT_SECONDS = 120.0
_TICKS = os.sysconf("SC_CLK_TCK")


class Redis(Process):
    """A private Redis which keeps nothing."""

    def __init__(self) -> None:
        super().__init__("redis")
        self.port = free_port()
        command = [program("redis-server"), "--port", str(self.port), "--bind", HOST]
        self._run([*command, "--save", "", "--appendonly", "no"], self._answers)

    @property
    def url(self) -> str:
        """Return what Celery calls its broker."""
        return f"redis://{HOST}:{self.port}/0"

    def _answers(self) -> bool:
        redis = importlib.import_module("redis")
        try:
            return bool(redis.Redis(host=HOST, port=self.port).ping())
        except redis.ConnectionError:
            return False


def is_there() -> bool:
    """Tell whether Celery, its client of Redis, and Redis itself are installed."""
    if find_spec("celery") is None or find_spec("redis") is None:
        return False
    try:
        return bool(program("redis-server"))
    except RuntimeError:
        return False


def make_app() -> Any:  # noqa: ANN401 - Celery, which is imported only if it is there
    """Return the application, as the worker and the sender see it."""
    app = importlib.import_module("celery").Celery("bench", broker=os.environ["BENCH_BROKER"])
    # Late: a message is gone from the broker when its tenant is done, and not before.
    app.conf.update(task_acks_late=True, task_ignore_result=True, worker_hijack_root_logger=False)
    url, options = make_url(os.environ["BENCH_URL"]), {"ssl_disabled": True}

    def count(name: str) -> None:
        from benchmarks.alchemy import visit  # noqa: PLC0415 - only where it is called

        engine = create_engine(url.set(database=name), poolclass=NullPool, connect_args=options)
        visit(engine)

    app.task(count, name="count")
    return app


def main(pool: str, url: str, tenants: str, workers: str, broker: str) -> None:
    """Start a worker, and send it one message for each tenant."""
    os.environ.update(BENCH_URL=url, BENCH_BROKER=broker)
    names = [f"bench_{number:04d}" for number in range(int(tenants))]
    app = make_app()
    send = app.tasks["count"].delay
    store = importlib.import_module("redis").Redis.from_url(broker)

    def is_idle() -> bool:
        return not store.llen(_WAITING) and not store.hlen(_AT_WORK)

    with _worker(pool, workers) as process:
        for name in names[:1] * _WARM:
            send(name)
        _wait(is_idle, process)
        started, cpu = time.monotonic(), time.process_time() + _tree_cpu_seconds(process.pid)
        for name in names:
            send(name)
        _wait(is_idle, process)
        seconds = time.monotonic() - started
        print(seconds, time.process_time() + _tree_cpu_seconds(process.pid) - cpu)


@contextmanager
def _worker(pool: str, workers: str) -> Iterator[subprocess.Popen[bytes]]:
    command = python("-m", "celery", "-A", "benchmarks.worker", "worker", "-P", pool)
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "ERROR"]
    with subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "--", *command, "-c", workers, *quiet],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)


def _wait(is_idle: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _LIMIT_SECONDS
    while not is_idle():
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError("Celery's worker does not work")
        time.sleep(_POLL_SECONDS)


def _tree_cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / _TICKS
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return own + sum(_tree_cpu_seconds(int(child)) for child in children)


if __name__ == "__main__":
    main(*sys.argv[1:])
