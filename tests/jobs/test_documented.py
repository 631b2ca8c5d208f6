"""What docs/jobs.md says about the shipped jobs."""

from pathlib import Path

import pytest

from tests.jobs.tenant import JOBS

PAGE = (Path(__file__).parents[2] / "docs" / "jobs.md").read_text()


def section(job: str) -> str:
    """Return the part of the page below the job's own heading."""
    return PAGE.partition(f"\n### {job}\n")[2].partition("\n### ")[0]


@pytest.mark.parametrize("job", JOBS)
def test_each_job_has_its_row_with_its_schedule(job) -> None:
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{job}` |")]

    assert f"`{JOBS[job].schedule}`" in row


@pytest.mark.parametrize("job", JOBS)
def test_each_job_has_its_section_with_its_options(job) -> None:
    for name, option in JOBS[job].options.items():
        (row,) = [line for line in section(job).splitlines() if line.startswith(f"| `{name}` |")]
        default = ",".join(option.default) if isinstance(option.default, tuple) else option.default
        assert f"| `{str(default).lower()}` |" in row
        assert (option.environment or "") in row


def test_no_job_is_described_that_is_not_there() -> None:
    described = {line.removeprefix("### ") for line in PAGE.splitlines() if line.startswith("### ")}

    assert described == set(JOBS)
