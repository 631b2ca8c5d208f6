"""`python -m demo show` ends well exactly when the planted failures, and only they, failed."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: One demo for the tests that only read what it says.
reads_the_same = pytest.mark.xdist_group("demo")


def show(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "demo", "show", "--folder", str(folder), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=110,
        check=False,
    )


def judged(shown: str) -> set[str]:
    """Return the counts of outcomes that were as planted."""
    (line,) = [line for line in shown.splitlines() if line.endswith("exactly as planted")]
    return set(line.strip().partition(";")[0].split(", "))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def nine_tenants(folder: Path) -> str:
    """Show a tenant with each defect and one on hold; return what is said."""
    shown = show(folder, "--tenants", "9")
    assert shown.returncode == 0, shown.stdout
    return shown.stdout


@reads_the_same
def test_a_small_fleet_fails_where_it_was_planted_and_nowhere_else(nine_tenants: str) -> None:
    # 9 tenants and the corrupt file, 27 jobs. What fails are 1 missing table, all jobs of two
    # tenants (empty, corrupt), and all but one of what is locked; another cannot be opened. Of
    # one nothing may be removed by 3 jobs. 8 more things are done once.
    assert judged(nine_tenants) == {
        "167 succeeded", "81 failed", "27 tenant_gone", "3 skipped",
    }  # fmt: skip
    assert "; 10 of them with items that cannot be done: exactly as planted" in nine_tenants
    assert "  the same slot once more: no row and no file has changed\n" in nine_tenants


@reads_the_same
def test_what_a_user_would_type_is_shown_with_what_comes_of_it(nine_tenants: str) -> None:
    assert "$ cronrunner run --scheduled-at 2026-03-01T00:00:00Z" in nine_tenants
    assert "$ cronrunner history" in nine_tenants
    assert "$ cronrunner run 'comms.*' --scheduled-at 2026-03-01T00:05:00Z" in nine_tenants
    assert "$ cronrunner run --scheduled-at 2026-03-01T00:00:00Z --again" in nine_tenants
    assert "cronrunner run cleanup.rate_limits --tenant=agency_cedar\n" in nine_tenants
    assert "Traceback (most recent call last)" in nine_tenants
    assert "no such table: rate_limits" in nine_tenants
    assert "/metrics | head" in nine_tenants
    assert "\n# HELP cronrunner_" in nine_tenants
    # What somebody reads who has never seen it; half of it is the one traceback.
    assert len(nine_tenants.splitlines()) < 160


@reads_the_same
def test_decoys_are_no_tenants(nine_tenants: str, folder: Path) -> None:
    made = {file.stem for file in (folder / "tenants").glob("*.db")}

    assert {"agency_acorn", "agency_corrupt", "agency_tmp_x", "mysql_backup"} <= made
    assert "agency_tmp_x" not in nine_tenants
    assert "mysql_backup" not in nine_tenants


@reads_the_same
def test_what_is_sent_is_a_file_of_its_tenant(nine_tenants: str, folder: Path) -> None:
    sent = {path.name: len([*path.iterdir()]) for path in (folder / "outbox").iterdir()}

    # Those that cannot be reached, or have no tables, send nothing; the fleet sends one report.
    assert sent.keys() == {
        "-", "agency_acorn", "agency_acorn2", "agency_birch", "agency_cedar", "agency_dahlia",
        "agency_hazel",
    }  # fmt: skip
    assert sent["-"] == 1
    assert f"  {sum(sent.values())} messages are there\n" in nine_tenants


def test_a_healthy_tenant_that_breaks_is_noticed_and_the_next_demo_begins_anew(
    tmp_path: Path,
) -> None:
    broken = show(tmp_path, "--tenants", "1", "--sabotage", "agency_acorn")
    mended = show(tmp_path, "--tenants", "1")

    assert broken.returncode == 1, broken.stdout
    lines = broken.stdout.splitlines()
    for job in ("compliance.overdue_actions", "maintenance.optimize_tables", "reports.usage"):
        assert f"{job} on agency_acorn: expected succeeded, got failed" in lines
    assert "exactly as planted" not in broken.stdout
    assert mended.returncode == 0, mended.stdout
    assert judged(mended.stdout) == {"35 succeeded", "27 failed"}


def test_the_same_is_shown_on_a_mariadb_of_its_own(tmp_path: Path) -> None:
    shown = show(tmp_path, "--tenants", "8", "--mariadb")

    assert shown.returncode == 0, shown.stdout
    # No corrupt file; only one job writes what is locked; an unreachable server is a failure.
    assert judged(shown.stdout) == {"168 succeeded", "56 failed"}
    assert "no row and no file has changed" in shown.stdout
