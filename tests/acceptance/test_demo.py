"""`python -m demo show` ends well exactly when the planted failures, and only they, failed."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


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


def test_a_small_fleet_fails_where_it_was_planted_and_nowhere_else(tmp_path: Path) -> None:
    shown = show(tmp_path, "--tenants", "8")

    assert shown.returncode == 0, shown.stdout
    # 8 tenants and the corrupt file, 4 jobs: what fails are 1 missing table, 3 times all jobs
    # of a tenant (locked, empty, corrupt); another one cannot be opened.
    assert "19 succeeded" in shown.stdout
    assert "13 failed" in shown.stdout
    assert "4 tenant_gone" in shown.stdout
    assert "exactly as planted" in shown.stdout


def test_what_a_user_would_type_is_shown_with_what_comes_of_it(tmp_path: Path) -> None:
    shown = show(tmp_path, "--tenants", "3").stdout

    assert "$ cronrunner run --scheduled-at 2026-03-01T00:00:00Z" in shown
    assert "$ cronrunner history" in shown
    assert "cronrunner --tenant=agency_cedar\n" in shown
    assert "Traceback (most recent call last)" in shown
    assert "no such table: rate_limits" in shown
    assert "/metrics | head" in shown
    assert "\n# HELP cronrunner_" in shown


def test_decoys_are_no_tenants(tmp_path: Path) -> None:
    shown = show(tmp_path, "--tenants", "1")

    assert shown.returncode == 0, shown.stdout
    assert {file.stem for file in (tmp_path / "tenants").glob("*.db")} == {
        "agency_acorn", "agency_corrupt", "agency_tmp_x", "mysql_backup",
    }  # fmt: skip
    assert "agency_tmp_x" not in shown.stdout
    assert "mysql_backup" not in shown.stdout


def test_a_healthy_tenant_that_breaks_is_noticed(tmp_path: Path) -> None:
    shown = show(tmp_path, "--tenants", "2", "--sabotage", "agency_acorn")

    assert shown.returncode == 1, shown.stdout
    lines = shown.stdout.splitlines()
    for job in ("compliance.overdue_actions", "reports.aggregate_metrics"):
        assert f"{job} on agency_acorn: expected succeeded, got failed" in lines
    assert "exactly as planted" not in shown.stdout


def test_the_demo_can_be_shown_again_in_the_same_folder(tmp_path: Path) -> None:
    first = show(tmp_path, "--tenants", "1", "--defects", "agency_acorn=missing_table")
    second = show(tmp_path, "--tenants", "1")

    assert (first.returncode, second.returncode) == (0, 0), first.stdout + second.stdout
    assert "5 failed" in first.stdout  # one for the table, four for the corrupt file
    assert "4 failed" in second.stdout


def test_the_same_is_shown_on_a_mariadb_of_its_own(tmp_path: Path) -> None:
    shown = show(tmp_path, "--tenants", "8", "--mariadb")

    assert shown.returncode == 0, shown.stdout
    # No corrupt file; only one job writes what is locked; an unreachable server is a failure.
    assert "22 succeeded" in shown.stdout
    assert "10 failed" in shown.stdout
    assert "exactly as planted" in shown.stdout
