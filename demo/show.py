"""The demo itself: make a fleet, run the real command on it, hold the outcomes against the plan."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cronrunner.model import ExitCode
from demo.configuration import PASSWORD, write_configuration
from demo.contents import changed, contents_of
from demo.expectations import CLEANUP, Endings, ending_of, expected, mismatches
from demo.files import Places, make_files
from demo.planting import plant, scene_of
from demo.stores import Store, open_store
from demo.tenants import Defect, DemoTenant
from demo.terminal import Terminal

_INSTANT: Final = "%Y-%m-%dT%H:%M:%SZ"
_LATER: Final = timedelta(minutes=5)
_METRICS_LINES: Final = 16
#: Of the summary of a run that only repeats another.
_SUMMARY_LINES: Final = 4
_HISTORY_LINES: Final = 12
#: What is wrong is said up to this many times.
_MOST_LINES: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """What is to be shown."""

    #: Where tenants, files, ledger and configuration are made; what is there of them is replaced.
    folder: Path
    tenants: Sequence[DemoTenant]
    seed: int
    at: datetime
    #: Use this configuration; ``None`` writes one into the folder.
    config: Path | None = None
    #: Tenants which lose a table that the plan knows nothing about.
    sabotaged: Sequence[str] = ()

    @property
    def places(self) -> Places:
        """Where the jobs' files are."""
        return Places(self.folder)


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
        write_configuration(config, url, demo.tenants, demo.places)
    store = open_store(url)
    terminal = Terminal(config, secrets)
    _make(terminal, demo, store)
    began = time.monotonic()
    wrong: list[str] = []
    locked = [tenant.name for tenant in demo.tenants if tenant.defect is Defect.LOCKED]
    with terminal.locks(locked, url, "work_items"):
        endings = _run(terminal, demo, store, wrong)
        _deliver(terminal, demo, store, wrong)
        _repeat(terminal, demo, store, wrong)
    _look_back(terminal, demo.tenants, endings)
    terminal.heading("Planned and got")
    if wrong:
        print("\n".join(wrong[:_MOST_LINES]))
        print(f"{len(wrong)} things are not as planned")
    else:
        print(f"  {_counts(endings)}: exactly as planted")
        print("  the same slot once more: no row and no file has changed")
    print(f"  after the set-up all of this took {time.monotonic() - began:.0f} s")
    return not wrong


def _make(terminal: Terminal, demo: Demo, store: Store) -> None:
    terminal.heading(f"A fleet of {len(demo.tenants)} tenants on {store.title}")
    scenes = (scene_of(tenant, seed=demo.seed, at=demo.at) for tenant in demo.tenants)
    make_files(demo.places, scenes, demo.at)
    by_defect: dict[Defect, list[str]] = {}
    for tenant in plant(store, demo.tenants, seed=demo.seed, at=demo.at):
        by_defect.setdefault(tenant.defect, []).append(tenant.name)
    for defect, names in by_defect.items():
        print(f"  {defect.meaning:<47} {', '.join(names)}", flush=True)
    for name in demo.sabotaged:
        store.drop(name, "work_items")


def _run(terminal: Terminal, demo: Demo, store: Store, wrong: list[str]) -> Endings:
    """Run the slot; add what is not as planned to ``wrong``, and return how all has ended."""
    terminal.heading("Every job on every tenant")
    exit_code = terminal.run("run", "--scheduled-at", _slot(demo), log=demo.folder / "run.log")
    planned = expected(demo.tenants, store.kind)
    endings = _endings(terminal)
    wrong.extend(_judge(planned, endings, exit_code))
    terminal.heading("Where one job has failed, from the ledger")
    limit = str(_HISTORY_LINES)
    terminal.cronrunner("history", "--job", CLEANUP, "--outcome", "failed", "--limit", limit)
    return endings


def _deliver(terminal: Terminal, demo: Demo, store: Store, wrong: list[str]) -> None:
    """Send what was queued after the delivery had passed: it comes every five minutes."""
    terminal.heading("Five minutes later: what the jobs have queued leaves, here into files")
    slot = f"{demo.at + _LATER:{_INSTANT}}"
    log = demo.folder / "deliver.log"
    arguments = ("run", "comms.*", "--scheduled-at", slot)
    exit_code = terminal.run(*arguments, log=log, lines=_SUMMARY_LINES)
    planned = expected(demo.tenants, store.kind)
    delivered = {key: ending for key, ending in planned.items() if key[0].startswith("comms.")}
    wrong.extend(f"later: {line}" for line in _judge(delivered, _endings(terminal), exit_code))
    print(f"  {sum(1 for _ in demo.places.outbox.glob('*/*'))} messages are there", flush=True)


def _repeat(terminal: Terminal, demo: Demo, store: Store, wrong: list[str]) -> None:
    """Run the slot once more; add to ``wrong`` what has changed by that."""
    terminal.heading("The same slot once more, on purpose: nothing is done twice")
    before = contents_of(store, demo.tenants, demo.places)
    arguments = ("run", "--scheduled-at", _slot(demo), "--again")
    log = demo.folder / "again.log"
    exit_code = terminal.run(*arguments, log=log, lines=_SUMMARY_LINES)
    planned = expected(demo.tenants, store.kind, again=True)
    wrong.extend(f"again: {line}" for line in _judge(planned, _endings(terminal), exit_code))
    changes = changed(before, contents_of(store, demo.tenants, demo.places))
    wrong.extend(f"{name} has changed in the second run of the slot" for name in changes)
    if not changes:
        print(f"  no row of {len(before)} tables and files has changed")


def _slot(demo: Demo) -> str:
    return f"{demo.at:{_INSTANT}}"


def _endings(terminal: Terminal) -> dict[tuple[str, str], str]:
    document = terminal.ask("show", "last")
    return {
        (each["job"], each["tenant"]): ending_of(
            each["outcome"], (each["counters"] or {}).get("errors", 0)
        )
        for each in document["executions"]
    }


def _judge(planned: Endings, endings: Endings, exit_code: int) -> Iterator[str]:
    is_well = all(ending.startswith(("succeeded", "skipped")) for ending in planned.values())
    wanted = ExitCode.OK if is_well else ExitCode.NOT_WELL
    if exit_code != wanted:
        yield f"expected a run that ends with {wanted}, got {exit_code}"
    yield from mismatches(planned, endings)


def _look_back(terminal: Terminal, tenants: Sequence[DemoTenant], endings: Endings) -> None:
    if failing := _one_failing(tenants, endings):
        job, tenant = failing
        terminal.heading(f"One job on one tenant: {job} on {tenant}")
        terminal.cronrunner("run", job, f"--tenant={tenant}", readable=True)
    terminal.heading("What Prometheus sees")
    print(terminal.metrics(_METRICS_LINES))


def _one_failing(tenants: Sequence[DemoTenant], endings: Endings) -> tuple[str, str] | None:
    """Choose a tenant on which one job fails and the others do not."""
    failed = [key for key, ending in endings.items() if ending == "failed"]
    number = Counter(tenant for _, tenant in failed)
    names = (tenant.name for tenant in tenants if number[tenant.name] == 1)
    chosen = next(names, None)
    return next((key for key in failed if key[1] == chosen), None)


def _counts(endings: Endings) -> str:
    outcomes = Counter(ending.partition(",")[0] for ending in endings.values())
    with_errors = sum("," in ending for ending in endings.values())
    counted = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
    return f"{counted}; {with_errors} of them with items that cannot be done"
