"""What the pages say about the shipped jobs."""

import pytest

from cronrunner.model import Scope
from cronrunner.registry.description import read_description
from scripts.pages import DOCS, pages
from tests.jobs.tenant import JOBS, TenantDatabase

PAGES = pages()
#: Where jobs come from, as in `From: OpsDeck: compliance drift snapshot`.
SYSTEMS = {"Risk Legion", "OpsDeck", "AgencyStack", "Orchid cronapp", "Sneaky Klaus"}
#: Those that can do without a catalogue, a file or a server of their own.
ALONE = [name for name, job in JOBS.items() if job.scope is Scope.TENANT and job.prepare is None]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_is_what_make_pages_would_write(path) -> None:
    assert path.read_text(encoding="utf-8") == PAGES[path]


def test_each_job_has_a_page_and_no_page_is_of_another() -> None:
    assert {path.stem for path in (DOCS / "jobs").glob("*.md")} == set(JOBS)


@pytest.mark.parametrize("job", JOBS)
def test_each_job_has_a_row_that_leads_to_its_page(job) -> None:
    (row,) = [line for line in PAGES[DOCS / "jobs.md"].splitlines() if f"](jobs/{job}.md)" in line]
    assert f"`{JOBS[job].schedule}`" in row


@pytest.mark.parametrize("job", JOBS)
def test_each_job_says_what_it_does_and_counts_and_where_it_comes_from(job) -> None:
    said = read_description(JOBS[job].description)

    assert said.summary.endswith(".")
    assert said.counters
    assert {part.partition(": ")[0] for part in said.origin.split("; ")} <= SYSTEMS
    assert all(option.help for option in JOBS[job].options.values())


@pytest.mark.parametrize("tenant", ["sqlite"], indirect=True)
@pytest.mark.parametrize("job", ALONE)
def test_each_counter_is_described_and_no_other(tenant: TenantDatabase, job) -> None:
    counters = tenant.attempt(job).counters

    assert (
        not counters or counters.keys() == read_description(JOBS[job].description).counters.keys()
    )
