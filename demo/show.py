"""The demo itself: make a fleet, run the real command on it, hold the outcomes against the plan."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cronrunner.model import ExitCode
from demo.configuration import PASSWORD, write_configuration
from demo.expectations import CLEANUP, expected, mismatches
from demo.planting import plant
from demo.stores import Store, open_store
from demo.tenants import Defect, DemoTenant
from demo.terminal import Terminal

#: Outcomes by job and tenant.
Outcomes = Mapping[tuple[str, str], str]

_METRICS_LINES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """What is to be shown."""

    #: Where tenants, ledger and configuration are made; what is there of them is replaced.
    folder: Path
    tenants: Sequence[DemoTenant]
    seed: int
    at: datetime
    #: Use this configuration; ``None`` writes one into the folder.
    config: Path | None = None
    #: Tenants which lose a table that the plan knows nothing about.
    sabotaged: Sequence[str] = ()


def show_sqlite(demo: Demo) -> bool:
    """Show the demo on SQLite files; tell whether the planted failures, and only they, failed."""
    shutil.rmtree(demo.folder / "tenants", ignore_errors=True)
    return _show(demo, f"sqlite:///{demo.folder / 'tenants'}", {})


def show_mariadb(demo: Demo) -> bool:
    """Show the demo on a MariaDB of its own; tell whether all went as planned."""
    # The server that the tests start; only this command needs what tests need.
    from tests.servers import MariaDB  # noqa: PLC0415

    with MariaDB(general_log=False, innodb_lock_wait_timeout=2) as server:
        server.create_user("cron", server.password)
        url = server.url("cron", server.password)
        return _show(demo, url, {PASSWORD: server.password})


def _show(demo: Demo, url: str, secrets: Mapping[str, str]) -> bool:
    for file in demo.folder.glob("ledger.db*"):
        file.unlink()
    config = demo.config or demo.folder / "tenants.yaml"
    if demo.config is None:
        write_configuration(config, url, demo.tenants)
    store = open_store(url)
    terminal = Terminal(config, secrets)
    _make(terminal, demo, store)
    planned = expected(demo.tenants, store.kind)
    exit_code = _run(terminal, demo, url)
    wanted = ExitCode.OK if set(planned.values()) == {"succeeded"} else ExitCode.NOT_WELL
    if exit_code != wanted:
        print(f"\nExpected a run that ends with {wanted}, got {exit_code}")
        return False
    outcomes = _outcomes(terminal)
    _look_back(terminal, demo.tenants, outcomes)
    return _judge(terminal, planned, outcomes)


def _make(terminal: Terminal, demo: Demo, store: Store) -> None:
    terminal.heading(f"A fleet of {len(demo.tenants)} tenants on {store.title}")
    for tenant in plant(store, demo.tenants, seed=demo.seed, at=demo.at):
        if tenant.defect is not Defect.NONE:
            print(f"  {tenant.name:<16} {tenant.defect.meaning}", flush=True)
    for name in demo.sabotaged:
        store.drop(name, "work_items")


def _run(terminal: Terminal, demo: Demo, url: str) -> int:
    terminal.heading("Every job on every tenant")
    locked = [tenant.name for tenant in demo.tenants if tenant.defect is Defect.LOCKED]
    with terminal.locks(locked, url, "work_items"):
        slot = f"{demo.at:%Y-%m-%dT%H:%M:%SZ}"
        return terminal.run("run", "--scheduled-at", slot, log=demo.folder / "run.log")


def _outcomes(terminal: Terminal) -> Outcomes:
    document = terminal.ask("show", "last")
    return {(each["job"], each["tenant"]): each["outcome"] for each in document["executions"]}


def _look_back(terminal: Terminal, tenants: Sequence[DemoTenant], outcomes: Outcomes) -> None:
    terminal.heading("Where one job has failed, from the ledger")
    terminal.cronrunner("history", "--job", CLEANUP, "--outcome", "failed", "--limit", "12")
    if failing := _one_failing(tenants, outcomes):
        terminal.heading(f"One tenant that fails: {failing}")
        terminal.cronrunner(f"--tenant={failing}", readable=True)
    terminal.heading("What Prometheus sees")
    print(terminal.metrics(_METRICS_LINES))


def _one_failing(tenants: Sequence[DemoTenant], outcomes: Outcomes) -> str | None:
    """Choose a tenant on which one job fails and the others do not."""
    failed = Counter(name for (_, name), outcome in outcomes.items() if outcome == "failed")
    return next((tenant.name for tenant in tenants if failed[tenant.name] == 1), None)


def _judge(terminal: Terminal, planned: Outcomes, outcomes: Outcomes) -> bool:
    wrong = list(mismatches(planned, outcomes))
    terminal.heading("Planned and got")
    print("\n".join(wrong) if wrong else f"  {_counts(outcomes)}: exactly as planted")
    return not wrong


def _counts(outcomes: Outcomes) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in Counter(outcomes.values()).items())
