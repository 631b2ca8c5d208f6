"""An author's own project: the example of docs/jobs.md, tested as it is written there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "jobs.md").read_text()


def example(file: str) -> str:
    """Return the block of the page that begins with the name of its file."""
    (found,) = re.findall(
        rf"^```python\n# {re.escape(file)}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE
    )
    return str(found)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for file in ("jobs/invitations.py", "conftest.py", "tests/test_invitations.py"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(example(file))
    (tmp_path / "jobs" / "schema.py").write_text((ROOT / "jobs" / "schema.py").read_text())
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    return tmp_path


def run_tests(project: Path, url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *("-m", "pytest", "-v", "-p", "no:cacheprovider", "-p", "no:randomly")],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CRONRUNNER_TEST_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_example_is_tested_on_sqlite_and_on_the_server_that_is_named(
    project: Path, mariadb_url: str, mariadb
) -> None:
    before = mariadb.execute("SHOW DATABASES")

    answer = run_tests(project, mariadb_url)

    assert answer.returncode == 0, answer.stdout
    assert answer.stdout.count("[sqlite] PASSED") == 2
    assert answer.stdout.count("[mysql] PASSED") == 2
    assert mariadb.execute("SHOW DATABASES") == before


def test_a_server_that_is_named_and_not_there_is_an_error_and_no_skip(project: Path) -> None:
    answer = run_tests(project, "mysql://root@127.0.0.1:1")

    assert answer.returncode == 1
    assert "2 passed, 2 errors" in answer.stdout
