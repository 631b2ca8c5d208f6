"""The first process of a container, which has no init: PID 1 of a namespace of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.fleet import ROOT, Finished, Fleet, finish
from tests.acceptance.small import SLOT, STUBBORN, WAITING, began, go, small, until

_UNSHARE = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child")


@contextmanager
def _first(fleet: Fleet, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start a command as PID 1; its exit code is that of `unshare`."""
    process = subprocess.Popen(
        [*_UNSHARE, sys.executable, "-m", "cronrunner", *arguments],
        cwd=fleet.folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _inner(process: subprocess.Popen[str]) -> int:
    """Return the PID by which we know the first process."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    until(lambda: children.read_text().strip())
    return int(children.read_text().split()[0])


def _stopped(fleet: Fleet, *signals_at: float) -> tuple[Finished, float]:
    """Send SIGTERM that many seconds after the jobs have begun; return how long it took then."""
    with _first(fleet, "run", "--json", "--scheduled-at", SLOT) as process:
        until(lambda: len(began(fleet)) == 2)
        for seconds in signals_at:
            time.sleep(seconds)
            os.kill(_inner(process), signal.SIGTERM)
        sent = time.monotonic()
        done = finish(process)
        return done, time.monotonic() - sent


def test_sigterm_drains_the_first_process_and_cancels_what_does_not_end(tmp_path: Path) -> None:
    grace = {"concurrency": 2, "grace": "1s"}
    done, seconds = _stopped(small(tmp_path, STUBBORN, tenants=6, runner=grace), 0)

    assert done.code == 75
    assert seconds < 2 * 1 + 3  # The grace, as long again for what is cancelled, a margin.
    assert done.document["outcomes"] == {"interrupted": 2, "skipped": 4}


def _catches(pid: int, number: signal.Signals) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    (caught,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (number - 1) & 1)


def test_a_second_sigterm_ends_the_first_process_at_once(tmp_path: Path) -> None:
    done, seconds = _stopped(small(tmp_path, STUBBORN, tenants=6), 0, 0.3)

    assert done.code == 75
    assert seconds < 1


@pytest.mark.parametrize("after_seconds", [0.0, 0.15, 0.35])
def test_sigterm_ends_the_first_process_while_it_starts(
    tmp_path: Path, after_seconds: float
) -> None:
    fleet = small(tmp_path, WAITING, tenants=6)
    with _first(fleet, "run", "--json", "--scheduled-at", SLOT) as process:
        # The first process gets no signal that it does not catch: from its first line on it does.
        inner = _inner(process)
        until(lambda: _catches(inner, signal.SIGTERM))
        time.sleep(after_seconds)
        os.kill(inner, signal.SIGTERM)
        go(fleet)
        assert finish(process, 10).code == 75
