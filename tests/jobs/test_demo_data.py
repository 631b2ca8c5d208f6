"""The demo's fleet: the same arguments give the same rows, and every defect is planted."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine

from cronrunner.config import load
from demo.configuration import job_options, write_configuration
from demo.contents import changed, contents_of
from demo.defects import LARGE_SCALE
from demo.expectations import FLEET, JOBS, Endings, expected, mismatches
from demo.files import Places, make_files
from demo.planting import contents, plant, scene_of
from demo.rows import TABLES
from demo.scene import Scene
from demo.stores import open_store
from demo.tenants import CORRUPT, DECOYS, Defect, fleet
from jobs.schema import metadata

ROOT = Path(__file__).parents[2]
AT = datetime(2026, 3, 1, tzinfo=UTC)


def make(folder: Path, count: int = 8, seed: int = 1, **defects: Defect) -> None:
    tenants = fleet(count, defects)
    assert list(plant(open_store(f"sqlite:///{folder}"), tenants, seed=seed, at=AT)) == [*tenants]


def select(file: Path, statement: str) -> list[Any]:
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(statement).fetchall()


def tables(file: Path) -> set[str]:
    return {name for (name,) in select(file, "SELECT name FROM sqlite_master WHERE type = 'table'")}


def dump(folder: Path) -> dict[str, list[Any]]:
    """Return every row of every table of every tenant."""
    return {
        f"{file.stem}.{table}": select(file, f"SELECT * FROM {table} ORDER BY id")
        for file in sorted(folder.glob("agency_*.db"))
        if file.stem != CORRUPT
        for table in sorted(tables(file))
    }


def test_the_same_arguments_give_the_same_rows_at_any_time(tmp_path: Path) -> None:
    with time_machine.travel(datetime(2026, 1, 1, tzinfo=UTC)):
        make(tmp_path / "one")
    with time_machine.travel(datetime(2030, 6, 1, tzinfo=UTC)):
        make(tmp_path / "two")

    assert dump(tmp_path / "one") == dump(tmp_path / "two")


def test_the_same_arguments_give_the_same_rows_in_any_process(tmp_path: Path) -> None:
    for hash_seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-m", "demo", "init", "--tenants", "2", "--seed", "5",
             "--at", "2026-03-01T00:00Z", "--url", f"sqlite:///{tmp_path / hash_seed}",
             "--files", str(tmp_path / "files")],
            cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": hash_seed}, check=True,
        )  # fmt: skip
    make(tmp_path / "here", count=2, seed=5)

    assert dump(tmp_path / "1") == dump(tmp_path / "2") == dump(tmp_path / "here")


def test_the_same_arguments_give_the_same_files(tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        # What is there of an earlier time is gone.
        (tmp_path / name / "outbox").mkdir(parents=True)
        (tmp_path / name / "outbox" / "sent").touch()
        scenes = [scene_of(tenant, seed=1, at=AT) for tenant in fleet(3)]
        make_files(Places(tmp_path / name), scenes, AT)
        found.append({
            str(path.relative_to(tmp_path / name)): (path.read_bytes(), path.stat().st_mtime)
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        })  # fmt: skip

    assert found[0] == found[1]
    assert {mtime for _, mtime in found[0].values()} == {AT.timestamp()}
    assert {"rates.json", "providers.json", "logs/app.log"} <= found[0].keys()
    assert {name for name in found[0] if name.startswith("backups/agency_birch/")} == {
        f"backups/agency_birch/{component}.gz"
        for component in (
            *("calendar", "database", "files", "index", "metrics", "search", "settings"),
            "uploads",
        )
    }


def test_another_seed_gives_other_rows(tmp_path: Path) -> None:
    make(tmp_path / "one", count=1, seed=1)
    make(tmp_path / "two", count=1, seed=2)

    assert dump(tmp_path / "one") != dump(tmp_path / "two")


def test_a_tenant_is_made_anew_in_place_of_what_was_there(tmp_path: Path) -> None:
    make(tmp_path, count=1, seed=2)
    make(tmp_path, count=1, seed=1)
    make(tmp_path / "fresh", count=1, seed=1)

    assert dump(tmp_path) == dump(tmp_path / "fresh")


def test_a_table_has_a_generator_of_its_own() -> None:
    def scene(tenant: str, seed: int = 1) -> Scene:
        return Scene(seed=seed, tenant=tenant, index=0, zone="UTC", at=AT)

    drawn = {
        scene(tenant, seed).random(table).random()
        for tenant in ("agency_acorn", "agency_birch")
        for seed in (1, 2)
        for table in TABLES
    }

    assert len(drawn) == 4 * len(TABLES)
    assert scene("agency_acorn").random("users").random() in drawn


def test_names_and_zones_take_turns() -> None:
    tenants = fleet(24)

    names = [tenant.name for tenant in tenants]
    assert names[:3] == ["agency_acorn", "agency_birch", "agency_cedar"]
    assert names[7:9] == ["agency_hazel", "agency_acorn2"]
    assert names[23] == "agency_hazel3"
    assert [tenant.zone for tenant in tenants][4:8] == [
        "Pacific/Kiritimati",
        "Europe/Berlin",
        "UTC",
        "America/New_York",
    ]


def test_defects_take_turns_and_can_be_chosen() -> None:
    assert [tenant.defect for tenant in fleet(3)] == ["none", "bad_rows", "missing_table"]
    assert [tenant.defect for tenant in fleet(16)] == [*Defect, *Defect]
    chosen = fleet(2, {"agency_birch": Defect.EMPTY})
    assert [tenant.defect for tenant in chosen] == ["none", "empty"]


def test_a_defect_for_a_tenant_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="agency_oak"):
        fleet(3, {"agency_oak": Defect.EMPTY})


def test_every_table_with_rows_is_one_of_the_schema() -> None:
    assert TABLES.keys() <= metadata.tables.keys()


def test_defects_of_the_database_are_planted(tmp_path: Path) -> None:
    make(tmp_path)

    whole = metadata.tables.keys()
    assert tables(tmp_path / "agency_acorn.db") == whole
    assert tables(tmp_path / "agency_cedar.db") == whole - {"rate_limits"}
    assert tables(tmp_path / "agency_fern.db") == set()
    assert not (tmp_path / "agency_gorse.db").exists()
    assert all((tmp_path / f"{decoy}.db").exists() for decoy in DECOYS)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        tables(tmp_path / f"{CORRUPT}.db")


def test_a_large_tenant_has_fifty_times_as_many_ordinary_rows(tmp_path: Path) -> None:
    make(tmp_path, count=2, agency_birch=Defect.LARGE)

    ((small,),), ((large,),) = (
        select(tmp_path / f"agency_{name}.db", "SELECT count(*) FROM audit_log")
        for name in ("acorn", "birch")
    )

    recent, old = 60, 10
    assert large - small == (recent + old) * (LARGE_SCALE - 1)


def test_each_kind_of_bad_row_is_planted(tmp_path: Path) -> None:
    make(tmp_path, count=2)

    bad = {
        "control_evidence": "result NOT IN ('pass', 'warning', 'fail')",
        "uar_comparisons": "frequency NOT IN ('daily', 'weekly', 'monthly')",
        "uar_rows": "attrs NOT LIKE '{%'",
        "expiring_assets": "expires_on IS NULL AND expires_at IS NULL",
        "users": "timezone LIKE 'Mars/%'",
        "users u": "email NOT LIKE '%@%'",
        "exchanges": "timezone LIKE 'Mars/%'",
        "exchanges e": "state = 'completed' AND completed_at IS NULL",
        "exchange_participants": "email NOT LIKE '%@%'",
        "integrations": "last_ok_at > '2026-03-01 00:05:01'",
        "integrations i": "provider = 'horoscope'",
        "integrations j": "kind = 'oauth' AND refresh_url IS NULL AND provider = 'calendar'",
        "expiring_assets a": "currency = 'ZZZ'",
        "notifications": "user_id IN (SELECT id FROM users WHERE timezone LIKE 'Mars/%')",
    }
    for table, condition in bad.items():
        statement = f"SELECT count(*) FROM {table} WHERE {condition}"
        assert select(tmp_path / "agency_acorn.db", statement) == [(0,)], table
        assert select(tmp_path / "agency_birch.db", statement) == [(1,)], table


def test_what_has_changed_in_a_table_or_a_file_is_named(tmp_path: Path) -> None:
    tenants, places = fleet(2), Places(tmp_path)
    make(tmp_path / "tenants", count=2)
    make_files(places, [], AT)
    store = open_store(f"sqlite:///{tmp_path / 'tenants'}")
    before = contents_of(store, tenants, places)
    assert changed(before, contents_of(store, tenants, places)) == []

    with closing(sqlite3.connect(tmp_path / "tenants" / "agency_birch.db")) as connection:
        connection.execute("UPDATE users SET name = 'Zoë' WHERE id = 1")
        connection.commit()
    (places.logs / "app.log").write_text("")
    places.outbox.mkdir()
    (places.outbox / "sent.eml").touch()

    assert changed(before, contents_of(store, tenants, places)) == [
        str(places.logs / "app.log"),
        str(places.outbox / "sent.eml"),
        "agency_birch.users",
    ]


def test_text_of_every_length_and_script_is_there() -> None:
    (tenant,) = fleet(1)

    rows = contents(tenant, scene_of(tenant, seed=1, at=AT))

    assert any(row["name"] == "Zoë 李 🎁" for row in rows["users"])
    assert max(len(row["body"]) for row in rows["outbox"]) == 300_000


def test_a_lock_is_held_against_writers_and_not_against_readers(tmp_path: Path) -> None:
    make(tmp_path, count=1)
    file = tmp_path / "agency_acorn.db"
    with subprocess.Popen(
        [sys.executable, "-m", "demo", "lock", "agency_acorn", "--for", "60s",
         "--url", f"sqlite:///{tmp_path}"],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    ) as holder:  # fmt: skip
        assert holder.stdout is not None
        assert holder.stdout.readline() == "agency_acorn is locked\n"
        with closing(sqlite3.connect(file, timeout=0)) as connection:
            assert connection.execute("SELECT count(*) FROM users").fetchone() > (0,)
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                connection.execute("DELETE FROM rate_limits")
        holder.send_signal(signal.SIGTERM)

    with closing(sqlite3.connect(file, timeout=0)) as connection:
        assert connection.execute("DELETE FROM rate_limits").rowcount > 0


def test_a_lock_ends_by_itself(tmp_path: Path) -> None:
    make(tmp_path, count=1)

    done = subprocess.run(
        [sys.executable, "-m", "demo", "lock", "agency_acorn", "--for", "10ms",
         "--url", f"sqlite:///{tmp_path}"],
        cwd=ROOT, check=False, timeout=30,
    )  # fmt: skip

    assert done.returncode == 0


def test_a_configuration_is_written_that_can_be_read(tmp_path: Path) -> None:
    tenants = fleet(8)
    url, places = f"sqlite:///{tmp_path}/tenants", Places(tmp_path)
    write_configuration(tmp_path / "tenants.yaml", url, tenants, places)

    settings = load(tmp_path / "tenants.yaml", {})

    assert settings.warnings == ()
    assert settings.job_folder.resolve() == ROOT / "jobs"
    assert {name: each.timezone for name, each in settings.tenants.items()} == {
        tenant.name: tenant.zone for tenant in tenants
    }
    assert settings.tenants["agency_dahlia"].debug_delay == timedelta(milliseconds=300)


def test_a_written_configuration_holds_no_password(tmp_path: Path) -> None:
    url = "mysql+pymysql://cron:sesame@127.0.0.1:3306"
    write_configuration(tmp_path / "tenants.yaml", url, fleet(8), Places(tmp_path))

    assert "sesame" not in (tmp_path / "tenants.yaml").read_text()
    settings = load(tmp_path / "tenants.yaml", {"DEMO_PASSWORD": "sesame"})
    assert settings.warnings == ()


def test_the_shipped_configuration_is_that_of_the_demo() -> None:
    settings = load(ROOT / "tenants.yaml", {})

    assert settings.warnings == ()
    zones = {name: each.timezone for name, each in settings.tenants.items() if each.timezone}
    assert zones == {tenant.name: tenant.zone for tenant in fleet(24)}
    delays = {name: each.debug_delay for name, each in settings.tenants.items() if each.debug_delay}
    assert delays == {"agency_dahlia*": timedelta(milliseconds=300)}
    on_hold = [name for name, each in settings.tenants.items() if "legal_hold" in each.labels]
    assert on_hold == [tenant.name for tenant in fleet(24) if tenant.is_on_hold]
    options = job_options(Places(Path("var/demo")))
    assert {name: each.options for name, each in settings.jobs.items() if each.options} == options
    listed = settings.servers["offline"].discover.list or ()
    assert [each.name for each in listed] == [
        tenant.name for tenant in fleet(24) if tenant.defect is Defect.UNREACHABLE
    ]


def by_defect(planned: Endings) -> dict[str, Counter[str]]:
    """Count how jobs end on the first tenant of each defect."""
    return {
        tenant.defect: Counter(
            ending.partition(",")[0] for (_, name), ending in planned.items() if name == tenant.name
        )
        for tenant in fleet(8)
    }


def test_what_is_expected_names_every_job_on_every_tenant() -> None:
    planned = expected(fleet(8), "sqlite")

    # The corrupt file is a tenant as well.
    assert len(planned) == len(JOBS) * 9 + len(FLEET)
    assert by_defect(planned) == {
        "none": {"succeeded": 27},
        "bad_rows": {"succeeded": 27},
        "missing_table": {"succeeded": 26, "failed": 1},
        "slow": {"succeeded": 27},
        "locked": {"succeeded": 1, "failed": 26},
        "empty": {"failed": 27},
        "unreachable": {"tenant_gone": 27},
        "large": {"succeeded": 27},
    }
    with_errors = {job for (job, _), ending in planned.items() if "errors" in ending}
    assert len(with_errors) == 10


def test_what_is_expected_on_a_server_differs_for_what_is_locked_or_unreachable() -> None:
    planned = by_defect(expected(fleet(8), "mariadb"))

    assert planned["locked"] == {"succeeded": 26, "failed": 1}
    assert planned["unreachable"] == {"failed": 27}


def test_what_is_expected_of_the_same_slot_once_more() -> None:
    again = expected(fleet(8), "sqlite", again=True)

    assert by_defect(again)["none"] == {"succeeded": 26, "skipped": 1}
    assert by_defect(again)["locked"] == {"succeeded": 1, "failed": 26}


def test_of_a_tenant_on_hold_nothing_is_removed() -> None:
    *_, on_hold = fleet(9)

    assert on_hold.is_on_hold
    planned = expected([on_hold], "mariadb")
    skipped = {job for (job, _), ending in planned.items() if ending == "skipped"}
    assert skipped == {"exchanges.purge", "retention.apply_policies", "retention.archive_audit_log"}


def test_a_mismatch_is_named_with_what_was_expected_and_what_came() -> None:
    planned = {("a", "one"): "succeeded", ("a", "two"): "failed", ("b", ""): "succeeded"}
    got = {("a", "one"): "failed", ("a", "two"): "failed", ("a", "three"): "succeeded"}

    assert list(mismatches(planned, got)) == [
        "a on one: expected succeeded, got failed",
        "a on three: expected nothing, got succeeded",
        "b on the fleet: expected succeeded, got nothing",
    ]
