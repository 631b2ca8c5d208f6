"""`cronrunner serve`, scraped by a real Prometheus, says what the ledger and the log say."""

import re
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.fleet import Fleet
from tests.servers import HOST, MariaDB, Prometheus, promtool

NAMES = ("well_1", "well_2", "well_3", "no_table", "skip", "cancel", "gone")
#: Of both jobs.
EXPECTED = {"succeeded": 3 + 6, "failed": 1, "skipped": 1, "cancelled": 1, "tenant_gone": 2}

JOBS = """
    @job
    def count(ctx):
        if "skip" in ctx.tenant.name:
            raise Skip("not wanted here")
        if "cancel" in ctx.tenant.name:
            raise Cancel("not like this")
        return {"items": ctx.connection.execute(text("SELECT COUNT(*) FROM items")).scalar_one()}

    @job
    def ping(ctx):
        ctx.connection.execute(text("SELECT 1"))
"""


@pytest.fixture
def fleet(mariadb: MariaDB, prefix: str, tmp_path: Path) -> Fleet:
    there = [prefix + name for name in NAMES if name != "gone"]
    mariadb.create_databases(there, "CREATE TABLE items (id INT)")
    mariadb.execute(f"DROP TABLE {prefix}no_table.items")
    registry = prefix + "registry"
    mariadb.create_databases([registry], "CREATE TABLE tenants (name VARCHAR(64))")
    for name in NAMES:
        mariadb.execute("INSERT INTO tenants VALUES (%s)", (prefix + name,), database=registry)
    query = f"SELECT name, name AS `database` FROM {registry}.tenants"
    server = {"url": mariadb.url(), "discover": {"query": query}}
    return Fleet(
        tmp_path,
        {"servers": {"main": server}, "metrics": {"textfile": "cron.prom"}},
        {"scraped": JOBS},
    )


@contextmanager
def serving(fleet: Fleet) -> Iterator[str]:
    """Serve on a free port and give `host:port`."""
    with fleet.started("serve", "--host", HOST, "--port", "0") as process:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if found := re.search(r"http://([\d.]+:\d+)/metrics", line):
                yield found[1]
                return
        raise AssertionError(f"it does not serve: {said}")


def text_of(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        body: bytes = answer.read()
        return body.decode()


def counted(text: str) -> Counter[str]:
    """Outcomes by `cronrunner_job_executions_total`, over all jobs."""
    counts: Counter[str] = Counter()
    pattern = r'^cronrunner_job_executions_total\{job="[^"]+",outcome="(\w+)"\} (\S+)$'
    for outcome, value in re.findall(pattern, text, re.MULTILINE):
        counts[outcome] += int(float(value))
    return +counts


def test_outcomes_counted_in_ledger_metrics_and_log_lines_are_equal(fleet: Fleet) -> None:
    run = fleet.run("--json")
    with serving(fleet) as address:
        served = text_of(address)

    logged = Counter(line["cronrunner"]["outcome"] for line in run.log_lines("execution.finished"))
    (finished,) = run.log_lines("run.finished")
    recorded = fleet.query("SELECT outcome, COUNT(*) FROM executions GROUP BY outcome")
    assert dict(recorded) == EXPECTED
    assert logged == EXPECTED
    assert finished["cronrunner"]["outcomes"] == EXPECTED
    assert run.document["outcomes"] == EXPECTED
    assert counted(served) == EXPECTED
    assert counted((fleet.folder / "cron.prom").read_text()) == EXPECTED
    assert 'cronrunner_db_errors_total{code="1146"} 1.0' in served
    assert 'cronrunner_db_errors_total{code="1049"} 2.0' in served


def test_what_is_served_passes_promtool(fleet: Fleet) -> None:
    fleet.run()
    with serving(fleet) as address:
        checked = promtool("check", "metrics", input=text_of(address))

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_prometheus_sees_what_the_ledger_knows_and_forgets_a_dropped_tenant(
    fleet: Fleet,
    mariadb: MariaDB,
    prefix: str,
    prometheus: Callable[..., Prometheus],
) -> None:
    fleet.run()
    with serving(fleet) as address:
        scraping = prometheus(address)
        success = "cronrunner_tenant_job_last_success_timestamp_seconds"
        found = scraping.await_query(success)

        assert [target["health"] for target in scraping.targets()] == ["up"]
        seen = {_pair(labels): value for labels, value in found}
        known = fleet.query(
            "SELECT job, tenant, last_success_at FROM statistics WHERE last_success_at <> ''"
        )
        assert len(known) == 9
        assert seen.keys() == {(job, tenant) for job, tenant, _ in known}
        for job, tenant, instant in known:
            at = datetime.fromisoformat(instant).replace(tzinfo=UTC).timestamp()
            assert seen[job, tenant] == pytest.approx(at, abs=1)

        dropped = prefix + "well_1"
        assert scraping.query(f'{{tenant="{dropped}", job!=""}}') != []
        mariadb.execute(
            "DELETE FROM tenants WHERE name = %s", (dropped,), database=prefix + "registry"
        )
        mariadb.execute(f"DROP DATABASE {dropped}")
        assert fleet.run("--json").document["tenants"] == len(NAMES) - 1
        scraping.await_query(f'absent({success}{{tenant="{dropped}"}})')
        assert scraping.query(f'{{tenant="{dropped}"}}') == []
        assert scraping.query(f'{success}{{tenant="{prefix}well_2"}}') != []
        ((_, up),) = scraping.query("up")
        assert up == 1


def _pair(labels: dict[str, Any]) -> tuple[str, str]:
    """The target's own label takes the name `job`, unless it honours ours."""
    return labels.get("exported_job", labels["job"]), labels["tenant"]
