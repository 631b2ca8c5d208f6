"""maintenance.rotate_logs"""

import gzip
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

from cronrunner import JobContext, Skip
from cronrunner.errors import DeadlineError, NoTenantError
from cronrunner.model import FLEET, Effects, Key, Request, Scope, Slot, Tenant
from tests.jobs.tenant import JOBS, NOW, S

JOB = "maintenance.rotate_logs"
NOTHING = dict.fromkeys(("rotated", "compressed", "deleted", "already", "empty", "errors"), 0)
DAY = timedelta(days=1)
WEEK_LATER = datetime(2026, 3, 8, tzinfo=UTC)


def context(
    slot: datetime = S, clock: Callable[[], datetime] = lambda: NOW, **options: Any
) -> JobContext:
    known = JOBS[JOB].options
    key = Key(job=JOB, tenant=FLEET, slot_key=Slot.scheduled(slot).key)
    return JobContext(
        job=JOBS[JOB],
        request=Request(key=key, run="test", slot=slot, attempt=1, fence=1),
        tenant=Tenant(name=FLEET, server="", database=""),
        engine=None,
        log=structlog.get_logger,
        clock=clock,
        deadline=clock() + timedelta(minutes=5),
        options={name: known[name].default for name in known}
        | {name: known[name].read(value) for name, value in options.items()},
    )


def rotate(folder: Path, slot: datetime = S, **options: Any) -> dict[str, int]:
    return dict(JOBS[JOB].call(context(slot, dir=str(folder), **options)))


def files(folder: Path) -> dict[str, str]:
    """Return what the files of a folder hold; what is compressed is unpacked."""
    return {
        path.name: (gzip.decompress if path.suffix == ".gz" else bytes)(path.read_bytes()).decode()
        for path in sorted(folder.iterdir())
        if path.is_file()
    }


def test_it_is_of_the_fleet_and_needs_no_database() -> None:
    assert JOBS[JOB].scope is Scope.FLEET
    assert JOBS[JOB].effects is Effects.REPEATABLE
    with pytest.raises(NoTenantError):
        _ = context().connection


def test_what_was_written_is_put_aside_and_a_new_file_begins(tmp_path: Path) -> None:
    for name, content in (("a.log", "one\n"), ("b.log", "two\n"), ("c.log", "")):
        (tmp_path / name).write_text(content)
    (tmp_path / "a.log").chmod(0o640)

    assert rotate(tmp_path) == NOTHING | {"rotated": 2, "empty": 1}

    assert files(tmp_path) == {
        "a.log": "", "a.log-20260301": "one\n",
        "b.log": "", "b.log-20260301": "two\n",
        "c.log": "",
    }  # fmt: skip
    assert (tmp_path / "a.log").stat().st_mode == (tmp_path / "a.log-20260301").stat().st_mode


def test_a_second_run_of_the_slot_leaves_what_was_written_since(tmp_path: Path) -> None:
    for name in ("a.log", "b.log"):
        (tmp_path / name).write_text("one\n")
    rotate(tmp_path)
    (tmp_path / "a.log").write_text("more\n")
    (tmp_path / "b.log").write_text("more\n")
    before = files(tmp_path)

    assert rotate(tmp_path) == NOTHING | {"already": 2}
    assert files(tmp_path) == before

    assert rotate(tmp_path, S + DAY) == NOTHING | {"rotated": 2}
    assert files(tmp_path)["a.log-20260302"] == "more\n"


def test_files_of_seven_days_ago_are_compressed(tmp_path: Path) -> None:
    for day in ("20260228", "20260301", "20260302"):
        (tmp_path / f"a.log-{day}").write_text(day)
    old = tmp_path / "a.log-20260301"
    old.chmod(0o600)
    os.utime(old, (1, 1))

    assert rotate(tmp_path, WEEK_LATER) == NOTHING | {"compressed": 2}

    assert files(tmp_path) == {
        "a.log-20260228.gz": "20260228",
        "a.log-20260301.gz": "20260301",
        "a.log-20260302": "20260302",
    }
    kept = (tmp_path / "a.log-20260301.gz").stat()
    assert (kept.st_mode & 0o777, kept.st_mtime) == (0o600, 1)
    before = files(tmp_path)
    assert rotate(tmp_path, WEEK_LATER) == NOTHING
    assert files(tmp_path) == before


def test_what_was_put_aside_and_compressed_at_once_is_not_put_aside_again(tmp_path: Path) -> None:
    archive = tmp_path / "old"
    archive.mkdir()
    (tmp_path / "a.log").write_text("one\n")
    options: dict[str, Any] = {"compress_days": 0, "archive_dir": str(archive)}

    assert rotate(tmp_path, **options) == NOTHING | {"rotated": 1, "compressed": 1}
    (tmp_path / "a.log").write_text("more\n")
    assert rotate(tmp_path, **options) == NOTHING | {"already": 1}

    assert files(tmp_path) == {"a.log": "more\n"}
    assert files(archive) == {"a.log-20260301.gz": "one\n"}


def test_compressed_files_are_moved_to_the_archive(tmp_path: Path) -> None:
    archive = tmp_path / "old"
    archive.mkdir()
    (tmp_path / "a.log-20260301").write_text("one\n")
    (tmp_path / "a.log-20260302").write_text("two\n")
    rotate(tmp_path, WEEK_LATER)

    counters = rotate(tmp_path, WEEK_LATER + DAY, archive_dir=str(archive))

    assert counters == NOTHING | {"compressed": 1}
    assert files(tmp_path) == {}
    assert files(archive) == {"a.log-20260301.gz": "one\n", "a.log-20260302.gz": "two\n"}


def test_files_of_more_than_ninety_days_are_deleted_here_and_there(tmp_path: Path) -> None:
    archive = tmp_path / "old"
    archive.mkdir()
    # The 30th of November is 91 days before the 1st of March.
    for name in ("a.log-20251130", "b.log-20251130.gz", "old/c.log-20251130.gz"):
        (tmp_path / name).write_bytes(gzip.compress(b""))
    for name in ("a.log-20251201.gz", "old/c.log-20251201.gz"):
        (tmp_path / name).write_bytes(gzip.compress(b""))

    assert rotate(tmp_path, archive_dir=str(archive)) == NOTHING | {"deleted": 3}
    assert list(files(archive)) == ["a.log-20251201.gz", "c.log-20251201.gz"]
    assert rotate(tmp_path, archive_dir=str(archive), keep_days=89) == NOTHING | {"deleted": 2}


def test_a_file_that_is_kept_open_is_copied_and_emptied(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with path.open("a") as writer:
        writer.write("one\n")
        writer.flush()
        assert rotate(tmp_path, copytruncate=True) == NOTHING | {"rotated": 1}
        writer.write("two\n")

    assert files(tmp_path) == {"a.log": "two\n", "a.log-20260301": "one\n"}


def test_only_regular_files_of_the_folder_that_the_patterns_name_are_rotated(
    tmp_path: Path,
) -> None:
    outside = tmp_path / "outside"
    outside.write_text("x")
    folder = tmp_path / "logs"
    (folder / "below.log").mkdir(parents=True)
    (folder / "below.log" / "a.log").write_text("x")
    (folder / "link.log").symlink_to(outside)
    (folder / "link.log-20200101").symlink_to(outside)
    os.mkfifo(folder / "pipe.log")
    for name in ("a.txt", ".hidden.log", "a.txt-20200101", "a.log-20209999", "a.log-2020"):
        (folder / name).write_text("x")
    before = sorted(folder.rglob("*"))

    assert rotate(folder) == NOTHING
    assert sorted(folder.rglob("*")) == before

    assert rotate(folder, patterns="*.txt, *.out") == NOTHING | {"rotated": 1, "deleted": 1}


def test_a_pattern_that_names_everything_does_not_rotate_what_is_rotated(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")

    assert rotate(tmp_path, patterns="*") == NOTHING | {"rotated": 1}
    assert rotate(tmp_path, S + DAY, patterns="*") == NOTHING | {"empty": 1}
    assert list(files(tmp_path)) == ["a", "a-20260301"]


def test_what_is_wrong_with_one_file_does_not_stop_the_others(tmp_path: Path) -> None:
    for name in ("a.log-20260201", "b.log-20260201"):
        (tmp_path / name).write_text("new")
    (tmp_path / "a.log-20260201.gz").write_bytes(gzip.compress(b"kept"))

    assert rotate(tmp_path) == NOTHING | {"compressed": 1, "errors": 1}
    assert files(tmp_path) == {
        "a.log-20260201": "new", "a.log-20260201.gz": "kept", "b.log-20260201.gz": "new",
    }  # fmt: skip


def test_an_archive_that_is_the_folder_itself_by_another_name_is_the_folder(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    (folder / "a.log-20260201").write_text("kept")

    counted = [rotate(folder, archive_dir=str(tmp_path / "link")) for _ in range(2)]

    assert counted == [NOTHING | {"compressed": 1}, NOTHING]
    assert files(folder) == {"a.log-20260201.gz": "kept"}


def test_what_a_killed_run_has_left_by_half_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / ".a.log-20260201.gz.partial").write_text("by half")
    (tmp_path / "a.log-20260201").write_text("whole")

    assert rotate(tmp_path) == NOTHING | {"compressed": 1}
    assert files(tmp_path) == {"a.log-20260201.gz": "whole"}


def test_a_file_on_which_time_runs_out_stays_as_it_was(tmp_path: Path) -> None:
    content = "x" * (3 << 20)
    (tmp_path / "a.log-20260201").write_text(content)
    # For the deadline, before the file, and after its first part.
    moments = iter([NOW] * 2)
    ctx = context(dir=str(tmp_path), clock=lambda: next(moments, NOW + timedelta(minutes=6)))

    with pytest.raises(DeadlineError):
        JOBS[JOB].call(ctx)
    assert files(tmp_path) == {"a.log-20260201": content}


def test_without_a_folder_it_is_skipped() -> None:
    assert JOBS[JOB].options["dir"].environment == "CRONRUNNER_LOG_DIR"
    with pytest.raises(Skip, match="no folder"):
        JOBS[JOB].call(context())


def test_a_folder_that_is_not_there_fails_the_job(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        rotate(tmp_path / "nowhere")


def test_an_archive_that_is_not_there_fails_the_job_before_it_does_anything(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.log").write_text("x")

    with pytest.raises(FileNotFoundError):
        rotate(tmp_path, archive_dir=str(tmp_path / "nowhere"))
    assert files(tmp_path) == {"a.log": "x"}
