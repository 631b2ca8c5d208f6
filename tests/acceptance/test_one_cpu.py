"""The threads of a run share one CPU; what needs more gets more."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cronrunner.affinity import OneCpu
from tests.acceptance.fleet import Fleet
from tests.acceptance.small import small, until

_ALL = sorted(os.sched_getaffinity(0))
_ONE = 1

_CPUS = """
    import os
    import subprocess
    import sys

    COUNT = "import os; print(len(os.sched_getaffinity(0)))"

    @job
    def work(ctx):
        mine = len(os.sched_getaffinity(0))
        started = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, check=True)
        return {"mine": mine, "of_a_process": int(started.stdout)}
"""


def _counted(fleet: Fleet) -> dict[str, int]:
    done = fleet.run("run", "--json")
    assert done.code == 0, done.stderr
    counters: dict[str, int] = done.execution("jobs.work", "t0")["counters"]
    return counters


@pytest.mark.one_process("with several each has a CPU of its own")
def test_visits_share_one_cpu_and_a_process_of_a_job_gets_all(tmp_path: Path) -> None:
    fleet = small(tmp_path, _CPUS, tenants=1)
    assert _counted(fleet) == {"mine": _ONE, "of_a_process": len(_ALL)}


def test_visits_use_all_cpus_if_told_to(tmp_path: Path) -> None:
    fleet = small(tmp_path, _CPUS, tenants=1, runner={"one_cpu": False})
    assert _counted(fleet) == {"mine": len(_ALL), "of_a_process": len(_ALL)}


@pytest.mark.one_process("with several each has a CPU of its own")
@pytest.mark.timeout(300)
def test_threads_leave_a_cpu_that_somebody_else_needs() -> None:
    if len(_ALL) == _ONE:
        pytest.fail("this promise needs a machine with two CPUs")
    spin = "import os; os.sched_setaffinity(0, {int(input())})\nwhile True: pass"
    hog = subprocess.Popen([sys.executable, "-c", spin], stdin=subprocess.PIPE, text=True)
    try:
        with OneCpu():
            (crowded,) = os.sched_getaffinity(0)
            assert hog.stdin is not None
            hog.stdin.write(f"{crowded}\n")
            hog.stdin.close()
            # It waits for a CPU that nobody needs: other tests may use the other one.
            until(lambda: os.sched_getaffinity(0) != {crowded}, seconds=240)
            assert len(os.sched_getaffinity(0)) == _ONE
    finally:
        hog.kill()
        hog.wait()
    assert sorted(os.sched_getaffinity(0)) == _ALL


def test_a_thread_that_was_released_keeps_all_cpus() -> None:
    seen: list[int] = []

    def work(pin: OneCpu) -> None:
        seen.append(len(os.sched_getaffinity(0)))
        pin.release()
        seen.append(len(os.sched_getaffinity(0)))

    with OneCpu() as pin:
        thread = threading.Thread(target=work, args=(pin,))
        thread.start()
        thread.join()
    assert seen == [_ONE, len(_ALL)]
