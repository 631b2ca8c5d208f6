"""The rates of a feed for a whole fleet: one request, and what happens when the feed is down."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from jobs.schema import exchange_rates, expiring_assets, job_items, rate_limits
from tests.acceptance.shipped import Shipped, total
from tests.servers import Answer, HttpServer

JOB = "finance.exchange_rates"
AT = ("run", "--json", "--scheduled-at", "2026-03-02T03:00:00Z")
TABLES = [exchange_rates, expiring_assets, job_items, rate_limits]
ASSET = {"kind": "subscription", "name": "CRM", "auto_renew": False, "currency": "USD"}
YESTERDAY = {
    "base": "EUR", "quote": "USD", "rate_date": date(2026, 3, 1), "rate_e8": 109_000_000, "source": "x",
}  # fmt: skip
FEED = {"base": "EUR", "date": "2026-03-02", "rates": {"USD": "1.10", "GBP": "0.85"}}


def world_of(folder: Path, url: str, tenants: int, **runner: Any) -> Shipped:
    jobs = {JOB: {"options": {"url": url, "retry_s": 0}}}
    rows = {expiring_assets: [ASSET], exchange_rates: [YESTERDAY]}
    settings = {"concurrency": 8, **runner}
    return Shipped(folder, TABLES, tenants=tenants, runner=settings, jobs=jobs, rows=rows)


@pytest.mark.parametrize("processes", [1, 2])
def test_500_tenants_need_one_request(
    tmp_path: Path, http_server: HttpServer, processes: int
) -> None:
    http_server.answer("/latest", Answer(body=json.dumps(FEED).encode()))
    world = world_of(tmp_path, http_server.url("/latest"), 500, processes=processes)
    finished = world.run(*AT, JOB)

    assert finished.code == 0, finished.stderr
    assert finished.document["outcomes"] == {"succeeded": 501}
    assert total(finished.document, "written") == 500
    assert len(http_server.asked) == 1
    (_, written) = world.rows("t499", exchange_rates)
    assert (written["rate_date"], written["rate_e8"]) == (date(2026, 3, 2), 110_000_000)


def test_a_feed_that_is_down_is_one_failure_and_touches_nothing_else(
    tmp_path: Path, http_server: HttpServer
) -> None:
    http_server.answer("/latest", Answer(500))
    world = world_of(tmp_path, http_server.url("/latest"), 3)
    finished = world.run(*AT, JOB, "cleanup.rate_limits")

    assert finished.code == 1
    assert finished.document["outcomes"] == {"failed": 1, "skipped": 3, "succeeded": 3}
    prepare = finished.execution(f"{JOB}:prepare", "")
    assert (prepare["attempts"], prepare["outcome"]) == (4, "failed")
    assert "500 Internal Server Error" in prepare["error"]
    assert finished.execution(JOB, "t1")["reason"] == "prepare failed"
    assert len(http_server.asked) == 4
    assert [row["rate_date"] for row in world.rows("t1", exchange_rates)] == [date(2026, 3, 1)]

    # The feed is back: the run is repeated for what is missing.
    http_server.answer("/latest", Answer(body=json.dumps(FEED).encode()))
    again = world.run("run", "--json", "--only-failed=last")
    assert again.document["outcomes"] == {"succeeded": 4}, again.stderr


def test_a_feed_that_comes_back_in_time_is_no_failure(
    tmp_path: Path, http_server: HttpServer
) -> None:
    http_server.answer("/latest", Answer(500), Answer(body=json.dumps(FEED).encode()))
    finished = world_of(tmp_path, http_server.url("/latest"), 2).run(*AT, JOB)

    assert finished.document["outcomes"] == {"succeeded": 3}
    assert finished.execution(f"{JOB}:prepare", "")["attempts"] == 2


def test_a_dry_run_downloads_nothing_and_goes_on(tmp_path: Path, http_server: HttpServer) -> None:
    world = world_of(tmp_path, http_server.url("/latest"), 2)
    dry = world.run(*AT, "--dry-run", JOB, "cleanup.rate_limits")

    assert dry.code == 0, dry.stderr
    assert dry.execution(JOB, "t0")["reason"].startswith("a dry run downloads nothing")
    assert http_server.asked == []
