"""Writes the pages of the shipped jobs, and the table in docs/jobs.md that leads to them."""

import re
from pathlib import Path

from cronrunner.cli.describing import overview_of, page_of
from cronrunner.registry.finding import find_jobs

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def pages() -> dict[Path, str]:
    """Return what is to be in each file."""
    jobs = find_jobs(ROOT / "jobs").jobs.values()
    overview = overview_of(jobs, lambda job: f"jobs/{job.name}.md")
    around = DOCS / "jobs.md"
    text = re.sub(
        r"(?s)(<!-- jobs: make pages -->\n).*?(<!-- end -->)",
        lambda found: f"{found[1]}\n{overview}\n{found[2]}",
        around.read_text(encoding="utf-8"),
    )
    return {DOCS / "jobs" / f"{job.name}.md": page_of(job) for job in jobs} | {around: text}


if __name__ == "__main__":
    wanted = pages()
    (DOCS / "jobs").mkdir(exist_ok=True)
    for path, text in wanted.items():
        path.write_text(text, encoding="utf-8")
    for path in set((DOCS / "jobs").glob("*.md")) - wanted.keys():
        path.unlink()
