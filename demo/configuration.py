"""The configuration with which cronrunner visits a demo fleet."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from sqlalchemy import URL, make_url

from demo.files import Places
from demo.rows.backups import EXPECTED
from demo.tenants import DELAY_MS, Defect, DemoTenant

#: Where the password of a MariaDB server is looked for.
PASSWORD: Final = "DEMO_PASSWORD"  # noqa: S105 - the name of a variable

_JOBS: Final = Path(__file__).resolve().parents[1] / "jobs"
#: A port of the loopback on which nothing listens: it is reserved, and clients never get it.
_DEAD: Final = "mysql+pymysql://cron@127.0.0.1:1"


def write_configuration(
    path: Path, url: str, tenants: Iterable[DemoTenant], places: Places
) -> None:
    """Write a ``tenants.yaml`` for ``tenants`` in the store at ``url``, with files in places."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.write("# Written by `python -m demo init`.\n")
        yaml = YAML()
        yaml.dump(_settings(path.parent, url, list(tenants), places), file)


def _settings(folder: Path, url: str, tenants: list[DemoTenant], places: Places) -> dict[str, Any]:
    unreachable = [tenant for tenant in tenants if tenant.defect is Defect.UNREACHABLE]
    servers = {"demo": _server(url)}
    if unreachable:
        servers["offline"] = _offline(url, unreachable)
    return {
        "ledger": "sqlite:///ledger.db",
        "job_folder": os.path.relpath(_JOBS, folder),
        "servers": servers,
        "tenants": {tenant.name: _tenant(tenant) for tenant in tenants},
        "jobs": {
            # Nobody waits half a minute for a lock that the demo holds on purpose.
            "*": {"retries": 0},
            **{job: {"options": options} for job, options in job_options(places).items()},
        },
        "log": {"format": "${LOG_FORMAT:-auto}", "level": "${LOG_LEVEL:-info}"},
    }


def job_options(places: Places) -> dict[str, dict[str, Any]]:
    """Return the options with which the demo runs the shipped jobs."""
    return {
        # Nothing leaves: every message becomes a file, and there is no server to spare.
        "comms.*": {"folder": str(places.outbox), "email_per_minute": 10_000},
        "compliance.overdue_actions": {"notify": True},
        "compliance.drift_snapshot": {"alert_email": ["compliance@agencies.example"]},
        "finance.exchange_rates": {"file": str(places.rates)},
        "maintenance.optimize_tables": {"tables": ["work_items", "audit_log"], "lock_s": 1},
        "maintenance.rotate_logs": {"dir": str(places.logs)},
        "maintenance.verify_backups": {
            "root": str(places.backups),
            "expected": ["database", EXPECTED],
            "alert_on_failure": True,
        },
        "operations.health_check": {"alert_on_failure": True},
        "operations.refresh_integrations": {"catalogue": str(places.catalogue)},
        "reports.usage": {"fleet_report_to": "management@agencies.example"},
    }


def _server(url: str) -> dict[str, Any]:
    parsed = make_url(url)
    exclude = ["agency_tmp_*"]
    if parsed.get_backend_name() == "sqlite":
        folder = str(Path(parsed.database or ".").absolute())
        directory = {"directory": folder, "pattern": "agency_*.db", "exclude": exclude}
        return {"url": "sqlite://", "discover": directory}
    shown = URL.create(parsed.drivername, parsed.username, host=parsed.host, port=parsed.port)
    server: dict[str, Any] = {"url": str(shown)}
    if parsed.password:
        server["password"] = f"${{{PASSWORD}}}"
    return server | {"discover": {"databases": "agency_*", "exclude": exclude}}


def _offline(url: str, tenants: list[DemoTenant]) -> dict[str, Any]:
    """Describe a server whose tenants are known and cannot be connected to."""
    if make_url(url).get_backend_name() != "sqlite":
        return {"url": _DEAD, "discover": {"list": [tenant.name for tenant in tenants]}}
    # What lies in a file and not in a folder cannot be opened, not even by root.
    files = [
        {"name": tenant.name, "database": f"{os.devnull}/{tenant.name}.db"} for tenant in tenants
    ]
    return {"url": "sqlite://", "discover": {"list": files}}


def _tenant(tenant: DemoTenant) -> dict[str, Any]:
    settings: dict[str, Any] = {"timezone": tenant.zone}
    if tenant.defect is Defect.SLOW:
        settings["debug_delay"] = f"{DELAY_MS}ms"
    if tenant.is_on_hold:
        settings["labels"] = {"legal_hold": "true"}
    return settings
