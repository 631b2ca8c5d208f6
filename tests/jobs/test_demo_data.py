"""The demo's fleet: the same arguments give the same rows, and every defect is planted."""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine

from cronrunner.config import load
from demo.configuration import write_configuration
from demo.defects import LARGE_SCALE
from demo.expectations import JOBS, expected, mismatches
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
             "--at", "2026-03-01T00:00Z", "--url", f"sqlite:///{tmp_path / hash_seed}"],
            cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": hash_seed}, check=True,
        )  # fmt: skip
    make(tmp_path / "here", count=2, seed=5)

    assert dump(tmp_path / "1") == dump(tmp_path / "2") == dump(tmp_path / "here")


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

    ordinary = 60
    assert large - small == ordinary * (LARGE_SCALE - 1)


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
        "integrations": "last_ok_at > '2026-03-01 00:05:00'",
    }
    for table, condition in bad.items():
        statement = f"SELECT count(*) FROM {table} WHERE {condition}"
        assert select(tmp_path / "agency_acorn.db", statement) == [(0,)], table
        assert select(tmp_path / "agency_birch.db", statement) == [(1,)], table


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
    write_configuration(tmp_path / "tenants.yaml", f"sqlite:///{tmp_path}/tenants", tenants)

    settings = load(tmp_path / "tenants.yaml", {})

    assert settings.warnings == ()
    assert settings.job_folder.resolve() == ROOT / "jobs"
    assert {name: each.timezone for name, each in settings.tenants.items()} == {
        tenant.name: tenant.zone for tenant in tenants
    }
    assert settings.tenants["agency_dahlia"].debug_delay == timedelta(seconds=1)


def test_a_written_configuration_holds_no_password(tmp_path: Path) -> None:
    url = "mysql+pymysql://cron:sesame@127.0.0.1:3306"
    write_configuration(tmp_path / "tenants.yaml", url, fleet(8))

    assert "sesame" not in (tmp_path / "tenants.yaml").read_text()
    settings = load(tmp_path / "tenants.yaml", {"DEMO_PASSWORD": "sesame"})
    assert settings.warnings == ()


def test_the_shipped_configuration_is_that_of_the_demo() -> None:
    settings = load(ROOT / "tenants.yaml", {})

    assert settings.warnings == ()
    zones = {name: each.timezone for name, each in settings.tenants.items() if each.timezone}
    assert zones == {tenant.name: tenant.zone for tenant in fleet(24)}
    listed = settings.servers["offline"].discover.list or ()
    assert [each.name for each in listed] == [
        tenant.name for tenant in fleet(24) if tenant.defect is Defect.UNREACHABLE
    ]


def test_what_is_expected_names_every_job_on_every_tenant() -> None:
    planned = expected(fleet(8), "sqlite")

    assert len(planned) == len(JOBS) * 9  # the corrupt file is a tenant as well
    assert {name for (_, name), outcome in planned.items() if outcome == "succeeded"} == {
        "agency_acorn", "agency_birch", "agency_cedar", "agency_dahlia", "agency_hazel",
    }  # fmt: skip
    assert {name for (_, name), outcome in expected(fleet(8), "mariadb").items()} == {
        tenant.name for tenant in fleet(8)
    }


def test_a_mismatch_is_named_with_what_was_expected_and_what_came() -> None:
    planned = {("a", "one"): "succeeded", ("a", "two"): "failed", ("b", "one"): "succeeded"}
    got = {("a", "one"): "failed", ("a", "two"): "failed", ("a", "three"): "succeeded"}

    assert list(mismatches(planned, got)) == [
        "a on one: expected succeeded, got failed",
        "a on three: expected nothing, got succeeded",
        "b on one: expected succeeded, got nothing",
    ]
