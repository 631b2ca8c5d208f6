"""What would be written without cronrunner, and what is left of it without its runner.

``python -m benchmarks.loops NAME URL TENANTS THREADS`` runs one loop: no deadline, no record of
what ran, no log, and one failing tenant ends all. Prints the seconds of the loop and its CPU
seconds, the start of the process left out.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

from sqlalchemy import URL, make_url

from benchmarks import alchemy, clientlib, engines, raw
from benchmarks.measuring import children_cpu_seconds

Loop = Callable[[URL, Sequence[str], int], None]

LOOPS: dict[str, Loop] = {
    "classic": alchemy.classic,
    "nullpool": alchemy.nullpool,
    "dialect": alchemy.shared_dialect,
    "raw": raw.connecting,
    "raw-forked": raw.forked,
    "raw-reset": raw.resetting,
    "raw-pipelined": raw.pipelining,
    "raw-tls": raw.encrypting,
    "raw-many": raw.connecting_for_many,
    "client": clientlib.connecting,
    "engines-reset": engines.resetting,
    "engines-fresh": engines.connecting,
    "engines-many": engines.resetting_for_many,
    "engines-waiting": engines.waiting,
}


def main(name: str, url: str, tenants: str, threads: str) -> None:
    """Run one loop over as many tenants as asked."""
    names = [f"bench_{number:04d}" for number in range(int(tenants))]
    started, cpu = time.monotonic(), _cpu_seconds()
    LOOPS[name](make_url(url), names, int(threads))
    print(time.monotonic() - started, _cpu_seconds() - cpu)


def _cpu_seconds() -> float:
    return time.process_time() + children_cpu_seconds()


if __name__ == "__main__":
    main(*sys.argv[1:])
