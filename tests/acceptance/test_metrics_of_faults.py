"""What went wrong, and what was done about it, is in the metrics and in the log alike."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.acceptance.fleet import Fleet
from tests.acceptance.joins import ENDLESS
from tests.acceptance.small import SLOT, STUBBORN, began, until
from tests.servers import HOST, MariaDB, free_port

JOBS = (
    f"""
    ENDLESS = "{ENDLESS}"
"""
    """
    import time
    from datetime import timedelta

    from cronrunner import Retry

    FAILED = set()

    @job(timeout="1s")
    def never_ends(ctx):
        ctx.execute(ENDLESS)

    @job(timeout="1s", isolation="process")
    def sleeps(ctx):
        time.sleep(60)

    @job(retries=2)
    def flaky(ctx):
        if ctx.tenant.name not in FAILED:
            FAILED.add(ctx.tenant.name)
            raise Retry("not yet", after=timedelta(milliseconds=10))

    @job
    def not_today(ctx):
        raise Skip("stopped by hand")

    @job
    def left_alone(ctx):
        ctx.execute("SELECT 1")
"""
)


@pytest.fixture
def fleet(mariadb: MariaDB, prefix: str, tmp_path: Path) -> Fleet:
    names = [f"{prefix}{n}" for n in range(2)]
    mariadb.create_databases(names)
    servers = {
        "main": {"url": mariadb.url(), "discover": {"list": names}},
        "away": {
            "url": f"mysql+pymysql://nobody@{HOST}:{free_port()}",
            "discover": {"list": [f"away_{n}" for n in range(8)]},
            "connect_timeout": "1s",
        },
    }
    settings = {"servers": servers, "metrics": {"textfile": "cron.prom"}}
    return Fleet(tmp_path, settings | {"runner": {"grace": "1s"}}, {"faulty": JOBS})


def metrics(fleet: Fleet, *names: str) -> Mapping[str, float]:
    """The samples of some families, as `label value` by what is behind the common prefix."""
    text = (fleet.folder / "cron.prom").read_text()
    found = re.findall(r"^cronrunner_(\w+?)(?:\{\w+=\"([^\"]*)\"\})? (\S+)$", text, re.MULTILINE)
    return {f"{name} {label}".strip(): float(v) for name, label, v in found if name in names}


@pytest.mark.one_process("its job remembers how often it was tried")
def test_faults_are_counted_by_what_was_done_about_them(fleet: Fleet) -> None:
    fleet.run("pause", "--job", "left_alone", "--reason", "a test")
    run = fleet.run("--scheduled-at", SLOT, "--json", "--server", "main")
    again = fleet.run("--scheduled-at", SLOT, "--json", "--server", "main")

    assert run.document["outcomes"] == {"timed_out": 4, "succeeded": 2, "skipped": 4}, run.stderr
    assert again.document["duplicates"] == 8
    counted = metrics(
        fleet, "kills_total", "retries_total", "skips_total", "duplicates_total", "spool_bytes"
    )
    killed = [line["cronrunner"]["killed"] for line in run.log_lines("deadline.enforced")]
    assert counted == {
        "kills_total statement": killed.count("statement"),
        "kills_total process": killed.count("process"),
        "retries_total faulty.flaky": len(run.log_lines("attempt.failed")),
        "skips_total by the job": 2,
        # In both runs: what is paused is open.
        "skips_total paused": 4,
        "duplicates_total faulty.never_ends": 2,
        "duplicates_total faulty.sleeps": 2,
        "duplicates_total faulty.flaky": 2,
        "duplicates_total faulty.not_today": 2,
        "spool_bytes": 0,
    }
    assert (killed.count("statement"), killed.count("process")) == (2, 2)
    assert counted["retries_total faulty.flaky"] == 2


def test_a_server_that_still_refuses_at_the_end_has_an_open_breaker(fleet: Fleet) -> None:
    fleet.run("run", "left_alone")

    assert metrics(fleet, "breaker_open", "breaker_openings_total") == {
        "breaker_open main": 0,
        "breaker_open away": 1,
        "breaker_openings_total away": 1,
    }


def test_a_run_that_was_killed_is_a_lost_lease(fleet: Fleet) -> None:
    fleet.write_job("stubborn", STUBBORN)
    with fleet.started("run", "stubborn.work", "--server", "main") as process:
        until(lambda: len(began(fleet)) == 2)
        process.kill()
        process.wait(10)
    fleet.run("run", "left_alone", "--server", "main")

    assert metrics(fleet, "lease_losses_total") == {"lease_losses_total": 1}
