"""What wins when several entries speak of one tenant or job."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cronrunner.config import Settings, load
from cronrunner.model import format_duration, parse_duration

Configure = Callable[[str], Settings]


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    def configure(text: str) -> Settings:
        path = tmp_path / "tenants.yaml"
        server = "servers: {main: {url: 'sqlite://', discover: {directory: tenants}}}\n"
        path.write_text(server + text, encoding="utf-8")
        return load(path, {})

    return configure


@pytest.mark.parametrize(
    ("tenants", "zone"),
    [
        ("{}", None),
        ("{acme: {timezone: UTC}}", "UTC"),
        ("{a*: {timezone: UTC}}", "UTC"),
        ("{'*': {timezone: UTC}, acme: {enabled: true}}", "UTC"),
        ("{a*: {timezone: UTC}, ac*: {timezone: Asia/Tokyo}}", "Asia/Tokyo"),
        ("{ac*: {timezone: Asia/Tokyo}, a*: {timezone: UTC}}", "UTC"),
        ("{acme: {timezone: Asia/Tokyo}, a*: {timezone: UTC}}", "Asia/Tokyo"),
        ("{'acm?': {timezone: UTC}, '[!b]cme': {labels: {x: y}}}", "UTC"),
        ("{Acme: {timezone: UTC}, ACM*: {timezone: UTC}}", None),
        ("{acme_*: {timezone: UTC}, cme: {timezone: UTC}}", None),
    ],
)
def test_a_name_beats_globs_and_later_globs_earlier_ones(
    configure: Configure, tenants: str, zone: str | None
) -> None:
    assert configure(f"tenants: {tenants}\n").tenant("acme").timezone == zone


def test_an_underscore_is_itself(configure: Configure) -> None:
    settings = configure("tenants: {a_*: {enabled: false}}\n")
    assert settings.tenant("a_b").enabled is False
    assert settings.tenant("axb").enabled is None


def test_a_name_with_brackets_is_a_name_too(configure: Configure) -> None:
    settings = configure("tenants: {'a[1]': {enabled: false}}\n")
    assert settings.tenant("a[1]").enabled is False
    assert settings.tenant("a1").enabled is False


def test_what_a_stronger_entry_does_not_say_stays(configure: Configure) -> None:
    settings = configure("""\
tenants:
  "*": {timezone: UTC, labels: {plan: free, region: eu}, debug_delay: 1s}
  acme: {labels: {plan: gold}, enabled: false}
""")
    acme = settings.tenant("acme")
    assert acme.labels == {"plan": "gold", "region": "eu"}
    assert (acme.timezone, acme.enabled) == ("UTC", False)
    assert acme.debug_delay == timedelta(seconds=1)
    assert settings.tenant("other").labels == {"plan": "free", "region": "eu"}


def test_a_tenant_names_its_jobs_with_all_that_is_said_of_them(configure: Configure) -> None:
    settings = configure("""\
tenants:
  "*": {jobs: {a.b: {timeout: 1m, options: {x: 1, y: 1}}}}
  acme: {jobs: {a.b: {options: {y: 2}}, c.d: {enabled: false}}}
""")
    jobs = settings.tenant("acme").jobs
    assert list(jobs) == ["a.b", "c.d"]
    assert jobs["a.b"].options == {"x": 1, "y": 2}
    assert jobs["a.b"].timeout == timedelta(minutes=1)


JOBS = """\
jobs:
  a.b: {timeout: 5m, retries: 1, options: {x: job, y: job}}
  "*": {timeout: 1m, schedule: "0 0 * * *"}
tenants:
  "*": {jobs: {a.b: {retries: 2, options: {x: fleet}}}}
  acme: {jobs: {"a.*": {retries: 3}, a.b: {enabled: false}}}
  brix: {jobs: {"*": {retries: 4}}}
"""


def test_a_job_is_what_the_jobs_section_says_where_no_tenant_is_asked_for(
    configure: Configure,
) -> None:
    job = configure(JOBS).job("a.b")
    assert (job.timeout, job.retries, job.schedule) == (timedelta(minutes=5), 1, "0 0 * * *")
    assert job.options == {"x": "job", "y": "job"}


@pytest.mark.parametrize(
    ("tenant", "retries", "enabled"), [("acme", 3, False), ("brix", 4, None), ("else", 2, None)]
)
def test_what_a_tenant_says_of_a_job_wins(
    configure: Configure, tenant: str, retries: int, enabled: bool | None
) -> None:
    job = configure(JOBS).job("a.b", tenant=tenant)
    assert (job.retries, job.enabled) == (retries, enabled)
    assert job.timeout == timedelta(minutes=5)
    assert job.options == {"x": "fleet", "y": "job"}


def test_a_job_that_nobody_mentions_is_as_its_code_says(configure: Configure) -> None:
    job = configure("jobs: {a.b: {enabled: false}}\n").job("c.d", tenant="acme")
    assert job.model_fields_set == set()


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("30s", 30), ("5m", 300), ("1h30m", 5400), ("250ms", 0.25), ("1.5h", 5400), ("1d", 86_400)],
)
def test_durations_are_written_with_their_unit(
    configure: Configure, written: str, seconds: float
) -> None:
    settings = configure(f"jobs: {{a: {{timeout: {written}}}}}\n")
    assert settings.job("a").timeout == timedelta(seconds=seconds)


@given(st.integers(min_value=1, max_value=10**12))
def test_a_duration_is_read_as_it_is_written(milliseconds: int) -> None:
    duration = timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(duration)) == duration
