"""What a job is on a tenant, once the configuration has had its say."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cronrunner.app.catalogue import Catalogue
from cronrunner.config import load
from cronrunner.model import (
    FLEET_TENANT,
    Isolation,
    Job,
    Key,
    Option,
    Request,
    Tenant,
    TenantFilter,
)

CONFIG = """
servers: {files: {url: "sqlite://", discover: {directory: tenants}}}
tenants:
  off: {enabled: false}
  slow*: {debug_delay: 2s}
  acme:
    jobs:
      a.x: {options: {days: 7}, timeout: 9m}
      a.y: {enabled: false}
  pilot: {jobs: {"a.*": {options: {days: 9}}}}
jobs:
  "a.*": {retries: 3}
  a.x: {timeout: 1m, schedule: "0 5 * * *", options: {days: 14}}
  a.off: {enabled: false}
"""


def nothing(ctx: Any) -> None:
    """Do nothing."""


def job(name: str, **given: Any) -> Job:
    options = {"days": Option(30), "rate": Option(0.5, environment="RATE"), "word": Option("w")}
    return Job(name=name, call=nothing, origin="a.py:1", options=options, **given)


def tenant(name: str) -> Tenant:
    return Tenant(name=name, server="files", database=name)


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    (tmp_path / "tenants.yaml").write_text(CONFIG, encoding="utf-8")
    settings = load(tmp_path / "tenants.yaml", {"RATE": "0.75"})
    jobs = [
        job("a.x", prepare=len, summarize=max),
        job("a.y", tenants=TenantFilter(names=("a*", "pilot"))),
        job("a.off"),
    ]
    return Catalogue(settings, {each.name: each for each in jobs})


def request(name: str, tenant: str = "acme") -> Request:
    key = Key(job=name, tenant=tenant, slot_key="s")
    return Request(key=key, run="r", slot=datetime(2026, 3, 1, tzinfo=UTC), attempt=1, fence=1)


def work(catalogue: Catalogue, name: str, on: Tenant, prepared: str | None = None) -> Any:
    return catalogue.work(
        request(name, on.name), on, lambda job, slot: prepared, lambda job, slot: [(job, slot)]
    )


def test_what_the_jobs_section_says_beats_the_declaration(catalogue: Catalogue) -> None:
    found = catalogue.jobs["a.x"]

    assert (found.timeout, found.schedule) == (timedelta(minutes=1), "0 5 * * *")
    assert found.retry.attempts == 4
    assert catalogue.jobs["a.y"].timeout == timedelta(minutes=5)
    assert not catalogue.jobs["a.off"].enabled


def test_options_come_from_tenant_job_environment_and_default_in_this_order(
    catalogue: Catalogue,
) -> None:
    days = {
        name: catalogue.options(catalogue.jobs["a.x"], tenant(name))
        for name in ("acme", "pilot", "other")
    }

    assert days["acme"] == {"days": 7, "rate": 0.75, "word": "w"}
    assert days["pilot"]["days"] == 9
    assert days["other"] == {"days": 14, "rate": 0.75, "word": "w"}
    assert catalogue.options(catalogue.jobs["a.y"], tenant("other"))["days"] == 30


@pytest.mark.parametrize(
    ("name", "on", "why"),
    [
        ("a.x", "acme", None),
        ("a.x", "off", "the tenant is disabled in tenants.yaml"),
        ("a.y", "acme", "the job is disabled for this tenant in tenants.yaml"),
        ("a.y", "birch", "not wanted by the job's tenants filter"),
        ("a.y", "aspen", None),
        # Who names a disabled job wants it, also on tenants with settings of their own.
        ("a.off", "birch", None),
        ("a.off", "pilot", None),
    ],
)
def test_a_job_is_kept_from_a_tenant_for_a_reason(
    catalogue: Catalogue, name: str, on: str, why: str | None
) -> None:
    assert catalogue.veto(catalogue.jobs[name], tenant(on)) == why


def test_an_attempt_is_made_with_what_holds_on_its_tenant(catalogue: Catalogue) -> None:
    found = work(catalogue, "a.x", tenant("acme"), prepared='{"n": 1}')

    assert (found.call, found.job.timeout) == (nothing, timedelta(minutes=9))
    assert (found.prepared, found.delay) == ({"n": 1}, None)
    assert work(catalogue, "a.y", tenant("slow1"), prepared="1").delay == timedelta(seconds=2)
    # Only a job with a prepare of its own is given its value.
    assert work(catalogue, "a.y", tenant("slow1"), prepared="1").prepared is None


def test_the_hooks_of_a_job_are_work_of_the_fleet(catalogue: Catalogue) -> None:
    prepare = work(catalogue, "a.x:prepare", FLEET_TENANT)
    summarize = work(catalogue, "a.x:summarize", FLEET_TENANT, prepared="[1]")

    assert (prepare.call, prepare.keeps_value) == (len, True)
    assert (summarize.call, summarize.prepared) == (max, [1])
    assert summarize.results() == [("a.x", "s")]


def test_a_job_that_is_not_there_any_more_is_a_lookup_error(catalogue: Catalogue) -> None:
    with pytest.raises(LookupError):
        work(catalogue, "gone.x", tenant("acme"))
    with pytest.raises(LookupError, match="no such hook any more"):
        work(catalogue, "a.y:prepare", FLEET_TENANT)


@pytest.mark.parametrize(
    ("declared", "said", "expected"),
    [
        (None, ("", "", ""), ("thread", "thread")),
        (None, ("process", "", ""), ("process", "process")),
        (Isolation.THREAD, ("process", "", ""), ("thread", "thread")),
        (Isolation.PROCESS, ("", "", ""), ("process", "process")),
        (Isolation.PROCESS, ("", "thread", ""), ("thread", "thread")),
        (None, ("thread", "process", "thread"), ("process", "thread")),
        (None, ("", "", "process"), ("thread", "process")),
    ],
)
def test_where_a_job_runs_is_said_by_who_says_it_most_exactly(
    tmp_path, declared: Isolation | None, said: tuple[str, str, str], expected: tuple[str, str]
) -> None:
    runner, jobs, on_acme = said
    text = 'servers: {files: {url: "sqlite://", discover: {directory: tenants}}}\n'
    text += f"runner: {{isolation: {runner}}}\njobs: {{a.x: {{isolation: {jobs}}}}}\n"
    text += f"tenants: {{acme: {{jobs: {{a.x: {{isolation: {on_acme}}}}}}}}}\n"
    (tmp_path / "tenants.yaml").write_text(text, encoding="utf-8")
    catalogue = Catalogue(
        load(tmp_path / "tenants.yaml", {}), {"a.x": job("a.x", isolation=declared)}
    )
    found = [work(catalogue, "a.x", tenant(name)).job.isolation for name in ("other", "acme")]

    assert tuple(found) == expected
