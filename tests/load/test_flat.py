"""A large fleet in one run on a private MariaDB: what it takes does not grow with the fleet.

`make test` does it with some hundred tenants; `make load`, which is `pytest tests/load --long`, with
ten thousand.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.fleet import Fleet
from tests.servers import HOST, DatabaseServer

#: Tenants after which a run has everything that it will ever have, and all of them.
SMALL, LARGE = (200, 600), (1000, 10_000)
#: What may come to a run from the first size to the second: of plan, report and tally. An engine
#: that stays would be fifty times as much.
MORE_BYTES = 10_000_000
INTERVAL_SECONDS = 0.02
LINES_BYTES = 1 << 20

#: The last tenant waits until all others have been seen to end: however fast the run is, it is
#: sampled with the whole fleet behind it.
JOB = """
    import time
    from pathlib import Path

    @job
    def count(ctx):
        number = ctx.connection.execute(text("SELECT COUNT(*) FROM items")).scalar_one()
        while ctx.tenant.name == "{last}" and not Path("sampled").exists():
            time.sleep(0.01)
        if ctx.tenant.name.endswith("77"):
            raise RuntimeError("as planned")
        return {"items": number}
"""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a process holds when so many executions have finished."""

    finished: int
    rss_bytes: int
    handles: int
    threads: int
    connections: int


def sample(pid: int, control: Any, finished: int) -> Sample:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    with control.cursor() as cursor:
        cursor.execute("SHOW STATUS LIKE 'Threads_connected'")
        connections = int(cursor.fetchone()[1])
    return Sample(
        finished=finished,
        rss_bytes=int(status["VmRSS"].split()[0]) * 1024,
        handles=len(list(Path(f"/proc/{pid}/fd").iterdir())),
        threads=int(status["Threads"]),
        connections=connections,
    )


@pytest.fixture
def fleet(
    tmp_path: Path, mariadb_server: Callable[..., DatabaseServer], request: pytest.FixtureRequest
) -> tuple[Fleet, DatabaseServer, tuple[int, int]]:
    sizes = LARGE if request.config.getoption("long") else SMALL
    server = mariadb_server(general_log=False)
    tenants = [f"flat_{number:05}" for number in range(sizes[1])]
    server.create_databases(
        tenants, "CREATE TABLE items (id INT PRIMARY KEY)", "INSERT INTO items VALUES (1), (2)"
    )
    main = {
        "url": f"mysql+pymysql://{server.admin}@{HOST}:{server.port}",
        "password": "${FLAT_PASSWORD}",
        "discover": {"databases": "flat_*"},
    }
    job = JOB.replace("{last}", tenants[-1])
    return Fleet(tmp_path, {"servers": {"main": main}}, {"flat": job}), server, sizes


@pytest.mark.timeout(1200)
def test_memory_handles_threads_and_connections_do_not_grow_with_the_fleet(
    fleet: tuple[Fleet, DatabaseServer, tuple[int, int]],
) -> None:
    project, server, (first, last) = fleet
    environ = {"FLAT_PASSWORD": server.password}
    samples, summary = watched_run(project, server, environ, tenants=last)
    settled = [each for each in samples if each.finished >= first]
    early, late = settled[0], settled[-1]
    print(f"\n{summary}\n{len(samples)} samples, of which\n{early}\n{late}")

    assert late.finished == last - 1
    assert max(each.rss_bytes for each in settled) - early.rss_bytes < MORE_BYTES
    for name in ("handles", "threads", "connections"):
        most_early = max(getattr(each, name) for each in samples if each.finished <= first * 2)
        # Some are being opened or closed at any moment.
        assert max(getattr(each, name) for each in settled) <= most_early + 5

    assert len(summary.splitlines()) < 12
    unwell = last // 100
    shown = project.run("show", "last", env=environ)
    assert f"{last - unwell} succeeded  {unwell} failed" in shown.stdout
    assert f"1 cause, {unwell} tenants" in shown.stdout
    newest = project.run("history", env=environ).stdout.splitlines()
    assert len(newest) == 51
    assert all(line.split()[2] == "flat.count" for line in newest[1:])


def watched_run(
    project: Fleet, server: DatabaseServer, environ: dict[str, str], *, tenants: int
) -> tuple[list[Sample], str]:
    """Run the fleet, and sample the process all the while; return its summary as well."""
    samples: list[Sample] = []
    finished = 0
    with (
        subprocess.Popen(
            [str(Path(sys.executable).with_name("cronrunner"))],
            cwd=project.folder,
            env={"PATH": os.environ["PATH"], **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process,
        closing(server.connect()) as control,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        due = 0.0
        rest = b""
        # All lines that are there, since they come several at once.
        while piece := os.read(process.stderr.fileno(), LINES_BYTES):
            *lines, rest = (rest + piece).split(b"\n")
            finished += sum(b'"execution.finished"' in line for line in lines)
            if finished >= tenants:
                break
            if time.monotonic() >= due or finished == tenants - 1:
                samples.append(sample(process.pid, control, finished))
                due = time.monotonic() + INTERVAL_SECONDS
            if finished == tenants - 1:
                (project.folder / "sampled").touch()
        process.stderr.read()
        summary = process.stdout.read().decode()
    assert process.returncode == 1
    return samples, summary
