"""maintenance.verify_backups"""

import gzip
import os
import random
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from cronrunner.errors import DeadlineError
from jobs.schema import backups, job_items, outbox, users
from tests.jobs.rows import admin, backup
from tests.jobs.tenant import JOBS, NOW, S, TenantDatabase, ago

JOB = "maintenance.verify_backups"
NOTHING = {"ok": 0, "warning": 0, "failed": 0, "already": 0, "alerts": 0, "errors": 0}
#: More than one chunk, also when it is packed.
CONTENT = random.Random(1).randbytes(3 * 1024 * 1024 + 17)
FILE = "database.sql"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "backups"
    folder.mkdir()
    (folder / FILE).write_bytes(CONTENT)
    return folder


def good(content: bytes = CONTENT, **values: Any) -> dict[str, Any]:
    """Return the row of a backup whose file holds `content`."""
    digest = sha256(content).hexdigest()
    return backup(**{"location": FILE, "size_bytes": len(content), "sha256": digest, **values})


def status(tenant: TenantDatabase, root: Path, row: dict[str, Any], **options: Any) -> str:
    """Verify one backup; return what was found, which is in the counters and in its row."""
    tenant.add(backups, row)
    counters = tenant.run(JOB, root=str(root), **options)
    kept = tenant.rows(backups)[-1]
    found = str(kept["verify_status"])
    rank = {"ok": "ok", "unverified": "warning", "shrunk": "warning"}.get(found, "failed")
    assert counters == NOTHING | {rank: 1}
    assert kept["verified_at"] == S
    return found


def test_a_good_file_is_ok(tenant: TenantDatabase, root: Path) -> None:
    tenant.add(backups, good())

    assert tenant.run(JOB, root=str(root)) == NOTHING | {"ok": 1}

    (row,) = tenant.rows(backups)
    assert (row["verified_at"], row["verify_status"], row["verify_detail"]) == (S, "ok", None)


@pytest.mark.parametrize(
    ("age", "found"),
    [(timedelta(hours=48), "ok"), (timedelta(hours=48, seconds=1), "stale")],
)
def test_a_backup_may_be_48_hours_old(tenant: TenantDatabase, root: Path, age, found) -> None:
    assert status(tenant, root, good(finished_at=S - age)) == found


def test_how_old_it_may_be_can_be_said(tenant: TenantDatabase, root: Path) -> None:
    assert status(tenant, root, good(finished_at=ago(hours=3)), max_age_h=2) == "stale"


@pytest.mark.parametrize("place", [0, 1024 * 1024, len(CONTENT) - 1])
def test_one_flipped_bit_is_corrupt(tenant: TenantDatabase, root: Path, place) -> None:
    flipped = bytearray(CONTENT)
    flipped[place] ^= 1
    (root / FILE).write_bytes(flipped)

    assert status(tenant, root, good()) == "corrupt"


def test_a_sum_in_capitals_is_the_same_sum(tenant: TenantDatabase, root: Path) -> None:
    assert status(tenant, root, good(sha256=sha256(CONTENT).hexdigest().upper())) == "ok"


def test_a_file_of_another_size_is_a_mismatch(tenant: TenantDatabase, root: Path) -> None:
    (root / FILE).write_bytes(CONTENT + b"x")

    assert status(tenant, root, good()) == "size_mismatch"


@pytest.mark.parametrize("has_sum", [True, False])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "no archive"])
def test_an_archive_must_be_readable_to_its_end(
    tenant: TenantDatabase, root: Path, damage, has_sum
) -> None:
    packed = gzip.compress(CONTENT)
    flipped = bytearray(packed)
    flipped[-6] ^= 1  # in the sum at its end
    stored = {
        "truncated": packed[:-1], "flipped": bytes(flipped), "empty": b"", "no archive": CONTENT,
    }[damage]  # fmt: skip
    (root / "a.gz").write_bytes(stored)
    row = good(stored, location="a.gz") | ({} if has_sum else {"sha256": None})

    assert status(tenant, root, row) == "corrupt"


def test_a_whole_archive_is_ok(tenant: TenantDatabase, root: Path) -> None:
    packed = gzip.compress(CONTENT[: 1 << 20]) + gzip.compress(CONTENT[1 << 20 :])
    (root / "a.gz").write_bytes(packed)

    assert status(tenant, root, good(packed, location="a.gz")) == "ok"


def test_a_file_without_a_sum_is_unverified(tenant: TenantDatabase, root: Path) -> None:
    assert status(tenant, root, good(sha256=None)) == "unverified"


@pytest.mark.parametrize(
    ("previous", "found"), [(2 * len(CONTENT), "ok"), (2 * len(CONTENT) + 1, "shrunk")]
)
def test_a_backup_of_less_than_half_the_one_before_has_shrunk(
    tenant: TenantDatabase, root: Path, previous, found
) -> None:
    tenant.add(
        backups,
        good(size_bytes=1, finished_at=ago(days=9)),
        good(size_bytes=previous, finished_at=ago(days=2)),
        good(size_bytes=1, finished_at=ago(hours=30), status="failed"),
        good(size_bytes=1, finished_at=ago(hours=30), component="files", location="x"),
    )

    assert status(tenant, root, good(), components="database") == found


@pytest.mark.parametrize(
    ("row", "found"),
    [
        pytest.param({"finished_at": ago(days=9), "location": "gone"}, "stale", id="stale"),
        pytest.param({"location": "gone", "size_bytes": 1}, "unreadable", id="unreadable"),
        pytest.param({"size_bytes": 1, "sha256": "0"}, "size_mismatch", id="size"),
        pytest.param({"sha256": "0"}, "corrupt", id="corrupt"),
        pytest.param({"sha256": None}, "unverified", id="unverified"),
    ],
)
def test_of_several_results_the_first_counts(
    tenant: TenantDatabase, root: Path, row, found
) -> None:
    tenant.add(backups, good(size_bytes=3 * len(CONTENT), finished_at=ago(days=10)))

    assert status(tenant, root, good() | row) == found


def test_a_file_that_leaves_the_folder_is_unreadable(tenant: TenantDatabase, root: Path) -> None:
    outside = root.parent / "outside.sql"
    outside.write_bytes(CONTENT)
    (root / "link").symlink_to(outside)
    (root / "folder").symlink_to(root.parent)
    (root / "inside").symlink_to(FILE)
    places = {
        "up": "../outside.sql", "whole": str(outside), "link": "link", "folder": "folder/outside.sql",
    }  # fmt: skip
    tenant.add(backups, *(good(component=name, location=at) for name, at in places.items()))
    tenant.add(
        backups,
        good(component="inside", location="inside"),
        good(component="round", location=f"../backups/{FILE}"),
        good(component="absolute", location=str(root / FILE)),
    )

    assert tenant.run(JOB, root=str(root), expected="up") == NOTHING | {"failed": 4, "ok": 3}

    found = {row["component"]: row["verify_status"] for row in tenant.rows(backups)}
    assert {name for name in found if found[name] == "unreadable"} == set(places)


@pytest.mark.parametrize("place", ["missing", "", ".", "fifo", "circle", "nul\0", FILE + "/below"])
def test_what_is_no_file_is_unreadable(tenant: TenantDatabase, root: Path, place) -> None:
    os.mkfifo(root / "fifo")
    (root / "circle").symlink_to("circle")

    assert status(tenant, root, good(location=place)) == "unreadable"


def test_without_its_folder_every_backup_is_unreadable(
    tenant: TenantDatabase, tmp_path: Path
) -> None:
    assert status(tenant, tmp_path / "nowhere", good()) == "unreadable"


@pytest.mark.parametrize(
    "row",
    [
        None,
        good(finished_at=S + timedelta(seconds=1)),
        good(status="running", finished_at=None),
        good(status="failed"),
    ],
)
def test_an_expected_component_without_a_finished_backup_is_missing(
    tenant: TenantDatabase, root: Path, row
) -> None:
    if row is not None:
        tenant.add(backups, row)

    assert tenant.run(JOB, root=str(root)) == NOTHING | {"failed": 1}
    assert tenant.run(JOB, root=str(root)) == NOTHING | {"already": 1}


def test_the_newest_finished_backup_by_the_slot_is_verified_and_no_other(
    tenant: TenantDatabase, root: Path
) -> None:
    tenant.add(
        backups,
        good(id=1, finished_at=ago(hours=2)),
        good(id=2, finished_at=ago(hours=1)),
        good(id=3, finished_at=ago(hours=3)),
        good(id=4, finished_at=S + timedelta(seconds=1)),
        good(id=5, finished_at=ago(minutes=1), status="failed"),
    )

    assert tenant.run(JOB, root=str(root)) == NOTHING | {"ok": 1}
    assert [row["id"] for row in tenant.rows(backups) if row["verified_at"]] == [2]


def test_a_second_run_of_the_slot_reads_no_file_and_changes_nothing(
    tenant: TenantDatabase, root: Path
) -> None:
    tenant.add(users, admin())
    tenant.add(backups, good(), good(component="files", location="gone"))
    options: dict[str, Any] = {"root": str(root), "alert_on_failure": True}
    assert tenant.run(JOB, **options) == NOTHING | {"ok": 1, "failed": 1, "alerts": 1}
    before = tenant.content()
    (root / FILE).unlink()

    assert tenant.run(JOB, **options) == NOTHING | {"already": 2}
    assert tenant.content() == before

    later = tenant.run(JOB, slot=S + timedelta(hours=1), **options)
    assert later == NOTHING | {"failed": 2, "alerts": 1}


@pytest.mark.parametrize(
    ("components", "verified"),
    [
        ("", ["database", "files", "mail"]),
        ("ALL", ["database", "files", "mail"]),
        (" Files , mail ", ["files", "mail"]),
        ("wiki", ["wiki"]),
    ],
)
def test_components_can_be_chosen_in_upper_and_lower_case(
    tenant: TenantDatabase, root: Path, components, verified
) -> None:
    tenant.add(backups, good(component="files"), good(component="Mail", status="failed"))

    tenant.run(JOB, root=str(root), components=components)

    assert [item["item"] for item in tenant.rows(job_items)] == verified


def test_what_is_expected_can_be_said(tenant: TenantDatabase, root: Path) -> None:
    counters = tenant.run(JOB, root=str(root), expected="database, files")

    assert counters == NOTHING | {"failed": 2}


def test_administrators_get_one_message_with_all_that_failed(
    tenant: TenantDatabase, root: Path
) -> None:
    tenant.add(users, admin(), admin(), admin(status="disabled"))
    tenant.add(backups, good(component="files", location="gone"), good(component="mail"))

    counters = tenant.run(JOB, root=str(root), alert_on_failure=True)

    assert counters == NOTHING | {"failed": 2, "ok": 1, "alerts": 2}
    message = tenant.rows(outbox)[0]
    assert message["body"].splitlines() == [
        "database: missing (no backup of it was finished)",
        "files: unreadable (No such file or directory)",
    ]


def test_nobody_is_told_unless_asked_for(tenant: TenantDatabase, root: Path) -> None:
    tenant.add(users, admin())

    assert tenant.run(JOB, root=str(root)) == NOTHING | {"failed": 1}
    assert tenant.rows(outbox) == []


def test_nobody_is_told_of_warnings(tenant: TenantDatabase, root: Path) -> None:
    tenant.add(users, admin())
    tenant.add(backups, good(sha256=None))

    assert tenant.run(JOB, root=str(root), alert_on_failure=True) == NOTHING | {"warning": 1}


def test_the_settings_of_the_environment_are_heeded() -> None:
    options = JOBS[JOB].options

    assert options["components"].environment == "BACKUP_VERIFY_COMPONENTS"
    assert options["alert_on_failure"].environment == "ALERT_ON_FAILURE"


@pytest.mark.parametrize("tenant", ["sqlite"], indirect=True)
def test_a_long_read_ends_with_the_jobs_timeout(tenant: TenantDatabase, root: Path) -> None:
    tenant.add(backups, good())
    moments = iter([NOW] + [NOW + timedelta(minutes=4)] * 2)

    def clock():
        return next(moments, NOW + timedelta(minutes=30))

    with pytest.raises(DeadlineError):
        tenant.run(JOB, root=str(root), clock=clock)
    assert tenant.rows(job_items) == []


@pytest.mark.parametrize(
    ("location", "result", "health"),
    [
        pytest.param(FILE, "ok", {"ok": 1}, id="ok"),
        pytest.param("gone", "unreadable", {"fail": 1}, id="unreadable"),
    ],
)
def test_the_health_check_finds_the_result(
    tenant: TenantDatabase, root: Path, location, result, health
) -> None:
    assert status(tenant, root, good(location=location)) == result

    counters = tenant.run("operations.health_check", components="backups")
    assert {name: count for name, count in counters.items() if count} == health


def test_the_health_check_fails_on_a_backup_that_is_missing(
    tenant: TenantDatabase, root: Path
) -> None:
    tenant.add(backups, good(status="failed", finished_at=None), good(status="failed"))
    tenant.run(JOB, root=str(root))

    assert tenant.run("operations.health_check", components="backups")["fail"] == 1

    tenant.add(backups, good(finished_at=S + timedelta(hours=1)))
    tenant.run(JOB, root=str(root), slot=S + timedelta(hours=2))
    later = tenant.run("operations.health_check", slot=S + timedelta(hours=2), components="backups")
    assert later["ok"] == 1
