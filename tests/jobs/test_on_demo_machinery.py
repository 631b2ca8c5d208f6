"""Jobs for machinery on the demo's tenants, their counters computed anew from rows and files."""

import gzip
import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

from demo.tenants import Defect, DemoTenant
from tests.jobs.demo_rows import (
    FEW,
    Row,
    admins,
    chosen,
    files_of,
    filled,
    queued,
    today,
)
from tests.jobs.tenant import S, TenantDatabase, ago

planned = filled(FEW)

BAD = "is wrong with the row"


def is_bad(planned: DemoTenant) -> bool:
    return planned.defect is Defect.BAD_ROWS


def test_deliver(tenant: TenantDatabase, planned: DemoTenant, tmp_path: Path) -> None:
    waiting = [
        row
        for row in tenant.rows("outbox")
        if row["not_before"] <= S
        and (
            row["status"] == "pending" or (row["status"] == "sending" and row["claimed_until"] < S)
        )
    ]
    known = [row for row in waiting if row["channel"] in {"email", "slack", "webhook"}]

    assert tenant.run("comms.deliver", zone=planned.zone, clock=S, folder=str(tmp_path)) == {
        "sent": len(known), "retried": 0, "dead": 1, "throttled": 0, "deferred": 0, "errors": 0,
    }  # fmt: skip

    assert {row["channel"] for row in known} == {"email", "slack", "webhook"}
    assert len(waiting) == len(known) + 1
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == len(known)
    assert max(path.stat().st_size for path in files) > 300_000
    left = [row for row in tenant.rows("outbox") if row["status"] in {"pending", "sending"}]
    assert min(row["claimed_until"] or row["not_before"] for row in left) > S


def status_of(evidence: list[Row], today: date) -> str:
    if not evidence:
        return "not_assessed"
    newest = max(evidence, key=lambda row: (row["collected_at"], row["id"]))
    if newest["result"] == "pass":
        is_over = newest["valid_until"] is not None and newest["valid_until"] < today
        return "warning" if is_over else "compliant"
    return {"warning": "warning", "fail": "non_compliant"}.get(newest["result"], BAD)


def kind_of(old: str | None, new: str | None) -> str:
    """Return the counter for a change, or nothing."""
    if old == new:
        return ""
    if old is None or new is None:
        return "added" if old is None else "removed"
    if new == "compliant" or (old, new) == ("non_compliant", "warning"):
        return "improvements"
    return {"warning": "high", "non_compliant": "critical", "not_assessed": "medium"}[new]


def windows(tenant: TenantDatabase) -> Iterator[tuple[str, int]]:
    for days in (7, 30, 90):
        rows = tenant.rows("compliance_snapshots")
        changes = [
            change["kind"]
            for row in rows
            if ago(days=days) < row["slot"] <= S
            for change in row["changes"]
        ]
        yield f"regressions_{days}d", changes.count("regression")
        yield f"improvements_{days}d", changes.count("improvement")


def test_drift_snapshot(tenant: TenantDatabase, planned: DemoTenant) -> None:
    *_, before = sorted(tenant.rows("compliance_snapshots"), key=lambda row: row["slot"])
    old, new = before["statuses"], {}
    controls = chosen(tenant.rows("framework_controls"), retired=False)
    for control in controls:
        evidence = chosen(tenant.rows("control_evidence"), control_id=control["id"])
        known = [row for row in evidence if row["collected_at"] <= S]
        new[str(control["id"])] = status_of(known, today(planned))
    errors = [number for number, status in new.items() if status == BAD]
    new |= {number: old.get(number, "not_assessed") for number in errors}
    found = Counter(kind_of(old.get(each), new.get(each)) for each in old.keys() | new.keys())

    counters = tenant.run(
        "compliance.drift_snapshot", zone=planned.zone, alert_email=["a@example.org"]
    )

    assert counters == {
        **{name: found[name] for name in ("critical", "high", "medium")},
        **{name: found[name] for name in ("improvements", "added", "removed")},
        "regressions": found["critical"] + found["high"] + found["medium"],
        "controls": len(controls),
        "baseline": 0,
        "alerts": 1,
        "errors": len(errors),
        **dict(windows(tenant)),
    }
    latest = max(tenant.rows("compliance_snapshots"), key=lambda row: row["slot"])
    assert (latest["slot"], latest["statuses"]) == (S, new)
    # A bad result keeps a control as it was, that would not be assessed any more.
    assert (found["medium"], len(errors)) == ((0, 1) if is_bad(planned) else (1, 0))
    assert all(found[each] for each in ("critical", "high", "improvements", "added", "removed"))
    assert counters["regressions_7d"] < counters["regressions_30d"] < counters["regressions_90d"]


def due(comparison: Row, tried: list[Row], planned: DemoTenant) -> bool:
    local = S.astimezone(ZoneInfo(planned.zone))
    following = local.date().replace(day=1) + timedelta(days=32)
    last = (following.replace(day=1) - timedelta(days=1)).day
    is_over = any(row["status"] == "done" or row["attempts"] >= 3 for row in tried)
    on = {
        "daily": local.day,
        "weekly": local.day - local.isoweekday() + (comparison["run_day"] or 1),
        "monthly": min(comparison["run_day"] or 1, last),
    }[comparison["frequency"]]
    return (local.day, local.hour) >= (on, comparison["run_hour"]) and not is_over


def dataset(rows: list[Row], name: str, ignored: list[str]) -> list[tuple[str, dict[str, str]]]:
    """Return the usable rows of a dataset, with fields as text: 1.0 as 1, null as absent."""
    return [
        (
            unicodedata.normalize("NFC", row["row_key"]),
            {
                field: repr(int(value) if isinstance(value, float) else value)
                for field, value in row["attrs"].items()
                if field not in ignored and value is not None
            },
        )
        for row in chosen(rows, dataset=name)
        if isinstance(row["attrs"], dict)
    ]


def findings(comparison: Row, rows: list[Row]) -> Counter[str]:
    found: Counter[str] = Counter()
    sides = []
    for side in ("left_dataset", "right_dataset"):
        side_rows = dataset(rows, comparison[side], comparison["ignore_fields"])
        sides.append(dict(reversed(side_rows)))
        found["duplicate"] += len(side_rows) - len(sides[-1])
    left, right = sides
    found["missing_right"] = len(left.keys() - right.keys())
    found["missing_left"] = len(right.keys() - left.keys())
    for key in left.keys() & right.keys():
        fields = left[key].keys() | right[key].keys()
        found["changed"] += sum(left[key].get(f) != right[key].get(f) for f in fields)
    return found


def test_execute_due(tenant: TenantDatabase, planned: DemoTenant) -> None:
    rows = tenant.rows("uar_rows")
    comparisons = tenant.rows("uar_comparisons")
    known = [row for row in comparisons if row["frequency"] in {"daily", "weekly", "monthly"}]
    reviewed = [
        row
        for row in chosen(known, enabled=True)
        if due(row, chosen(tenant.rows("uar_executions"), comparison_id=row["id"]), planned)
    ]
    full = [row for row in reviewed if chosen(rows, dataset=row["right_dataset"])]
    found = sum((findings(row, rows) for row in full), Counter[str]())
    not_objects = [row for row in rows if not isinstance(row["attrs"], dict)]

    assert tenant.run("uar.execute_due", zone=planned.zone) == {
        "due": len(reviewed),
        "executed": len(full),
        "failed": len(reviewed) - len(full),
        "findings": found.total(),
        "errors": len(comparisons) - len(known) + len(not_objects),
    }

    assert Counter(row["kind"] for row in tenant.rows("uar_findings")) == found
    assert set(found) == {"duplicate", "missing_right", "missing_left", "changed"}
    assert len(full) < len(reviewed) < len(chosen(known, enabled=True))
    assert bool(not_objects) is is_bad(planned)


def test_exchange_rates(tenant: TenantDatabase, planned: DemoTenant, tmp_path: Path) -> None:
    file = files_of(planned, tmp_path).rates
    feed = json.loads(file.read_text())
    day = date.fromisoformat(feed["date"])
    stored = {
        (row["quote"], row["rate_date"]): row["rate_e8"] for row in tenant.rows("exchange_rates")
    }
    counted = Counter(written=0, updated=0, unchanged=0, missing=0, suspicious=0, errors=0)
    codes = {(row["currency"] or "").upper() for row in tenant.rows("expiring_assets")}
    for code in codes - {"", feed["base"]}:
        if code not in feed["rates"]:
            counted["missing"] += 1
        elif not feed["rates"][code].replace(".", "").isdigit():
            counted["errors"] += 1
        else:
            parts = round(Decimal(feed["rates"][code]) * 10**8)
            now = stored.get((code, day))
            earlier = [rate for (quote, on), rate in stored.items() if quote == code and on < day]
            if now == parts:
                counted["unchanged"] += 1
            elif any(abs(parts - rate) > rate / 5 for rate in earlier):
                counted["suspicious"] += 1
            else:
                counted["written" if now is None else "updated"] += 1

    assert tenant.run("finance.exchange_rates", zone=planned.zone, file=str(file)) == counted

    assert counted["written"] == 2
    assert {counted[each] for each in ("updated", "unchanged", "missing", "suspicious")} == {1}
    assert counted["errors"] == is_bad(planned)


def verdict(root: Path, rows: list[Row]) -> str:
    """Judge a component by its rows."""
    done = [row for row in rows if row["status"] == "finished" and row["finished_at"] <= S]
    if not done:
        return "missing"
    *earlier, newest = sorted(done, key=lambda row: row["finished_at"])
    if S - newest["finished_at"] > timedelta(hours=48):
        return "stale"
    if damage := damage_of(root / newest["location"], newest):
        return damage
    if newest["sha256"] is None:
        return "unverified"
    return "shrunk" if 2 * newest["size_bytes"] < earlier[-1]["size_bytes"] else "ok"


def damage_of(file: Path, newest: Row) -> str | None:
    if not file.exists():
        return "unreadable"
    content = file.read_bytes()
    if len(content) != newest["size_bytes"]:
        return "size_mismatch"
    if newest["sha256"] not in {None, hashlib.sha256(content).hexdigest()}:
        return "corrupt"
    try:
        gzip.decompress(content)
    except (EOFError, gzip.BadGzipFile):
        return "corrupt"
    return None


def test_verify_backups(tenant: TenantDatabase, planned: DemoTenant, tmp_path: Path) -> None:
    root = files_of(planned, tmp_path).backups
    rows = tenant.rows("backups")
    names = {row["component"] for row in rows} | {"vault"}
    found = {name: verdict(root, chosen(rows, component=name)) for name in names}
    warning = sum(each in {"unverified", "shrunk"} for each in found.values())
    ok = [*found.values()].count("ok")

    counters = tenant.run(
        "maintenance.verify_backups",
        zone=planned.zone,
        root=str(root),
        expected=["database", "vault"],
        alert_on_failure=True,
    )

    assert counters == {
        "ok": ok,
        "warning": warning,
        "failed": len(found) - ok - warning,
        "already": 0,
        "alerts": len(admins(tenant)),
        "errors": 0,
    }
    stamped = chosen(tenant.rows("backups"), verified_at=S)
    verified = {row["component"]: row["verify_status"] for row in stamped}
    assert verified == {name: each for name, each in found.items() if name != "vault"}
    assert set(found.values()) == {
        "missing", "stale", "unreadable", "size_mismatch", "corrupt", "unverified", "shrunk", "ok",
    }  # fmt: skip


def test_optimize_tables(tenant: TenantDatabase, planned: DemoTenant) -> None:
    assert tenant.run("maintenance.optimize_tables", zone=planned.zone) == {
        "done": 5, "locked": 0, "left": 0, "already": 0, "errors": 0,
    }  # fmt: skip


def test_rotate_logs(tenant: TenantDatabase, planned: DemoTenant, tmp_path: Path) -> None:
    folder = files_of(planned, tmp_path).logs
    names = {path.name for path in folder.iterdir()}
    logs = [path for path in folder.glob("*.log") if f"{path.name}-20260301" not in names]
    full = [path for path in logs if path.stat().st_size]
    past = {
        path: (S.date() - date.fromisoformat(path.suffix.partition("-")[2])).days
        for path in folder.glob("*.log-????????")
    }
    is_taken = {path for path in past if f"{path.name}.gz" in names}
    packed = {path for path, days in past.items() if 7 <= days <= 90} - is_taken

    assert tenant.run("maintenance.rotate_logs", dir=str(folder)) == {
        "rotated": len(full),
        "compressed": len(packed),
        "deleted": sum(days > 90 for days in past.values()),
        "already": 1,
        "empty": len(logs) - len(full),
        "errors": len(is_taken),
    }

    assert {7, 90} == {past[path] for path in packed}
    assert {6, 91} <= {*past.values()}
    assert all((folder / f"{path.name}-20260301").stat().st_size for path in full)
    assert len(full) == 2
    assert len(is_taken) == 1
    assert (folder / "notes.txt").exists()
    assert not (folder / "app.log").read_bytes()


def test_refresh_integrations(tenant: TenantDatabase, planned: DemoTenant, tmp_path: Path) -> None:
    file = files_of(planned, tmp_path).catalogue
    catalogue = json.loads(file.read_text())
    counted = Counter(ok=0, degraded=0, unsupported=0, updated=0, renewals=0, already=0, errors=0)
    enabled = chosen(tenant.rows("integrations"), enabled=True)
    services = [row for row in enabled if row["kind"] != "mailbox"]
    for row in services:
        provider = catalogue.get(row["provider"], {"status": "unsupported"})
        ends = row["token_expires_at"] if row["kind"] == "oauth" else None
        is_near = provider["status"] == "up" and ends and ends <= ago(hours=-48)
        if provider["status"] == "unsettled" or (is_near and not row["refresh_url"]):
            counted["errors"] += 1
        else:
            counted[{"up": "ok", "down": "degraded"}.get(provider["status"], "unsupported")] += 1
            counted["renewals"] += bool(is_near)
            is_newer = provider["status"] == "up" and provider["version"] != row["config_version"]
            counted["updated"] += is_newer

    assert counted == tenant.run(
        "operations.refresh_integrations", zone=planned.zone, catalogue=str(file)
    )

    assert all(counted[each] for each in ("ok", "degraded", "unsupported", "updated", "renewals"))
    assert counted["errors"] == 2 * is_bad(planned)
    (renewal,) = chosen(tenant.rows("outbox"), channel="webhook", created_at=S)
    assert renewal["recipient"] == "https://id.example/token"


def test_email_sync_monitor(tenant: TenantDatabase, planned: DemoTenant) -> None:
    found: Counter[str] = Counter()
    told = 0
    for row in chosen(tenant.rows("integrations"), kind="mailbox", enabled=True):
        seen, hour = row["last_ok_at"], timedelta(minutes=60)
        if seen and seen > S + timedelta(minutes=5):
            found["errors"] += 1
            continue
        state = "stale" if seen and S - seen > hour else "ok"
        if seen is None and S - row["created_at"] > hour:
            state = "never"
        if row["failures"] >= 3:
            state = "failing"
        found[state] += 1
        was, at = row["alerted_state"], row["alerted_at"]
        if state == "ok":
            found["recovered"] += was is not None
            told += was is not None
        elif state != was or S - at >= timedelta(hours=24):
            told += 1
            found["alerts"] += len(admins(tenant))

    assert tenant.run("operations.email_sync_monitor", zone=planned.zone) == {
        **dict.fromkeys(("ok", "stale", "failing", "never", "alerts", "recovered", "errors"), 0),
        **found,
    }

    assert all(found[each] for each in ("ok", "stale", "failing", "never", "recovered"))
    assert found["errors"] == is_bad(planned)
    assert queued(tenant) == told * len(admins(tenant))
