"""Spools: what a run leaves when its ledger is lost, and what the next command makes of it."""

import json
import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cronrunner.app.spools import import_spools
from cronrunner.errors import LedgerError
from cronrunner.events import Event, SpoolImported, Warned
from cronrunner.ledger import spool
from cronrunner.ledger.rows import run_row
from cronrunner.ledger.spool import Spool
from cronrunner.ledger.store import Ledger
from cronrunner.model import FLEET, SPOOL_IMPORTED, Claims, Outcome, Result
from tests.conformance.conftest import NOON, LedgerDatabase, key, result_of, until
from tests.conformance.holder import report, this_run

ACME, BIRCH, CEDAR = key("acme"), key("birch"), key("cedar")
SELDOM = timedelta(seconds=19)
ELSEWHERE: dict[str, Any] = {"host": "elsewhere"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def begin(database: LedgerDatabase, folder: Path | None, name: str, **given: Any) -> Ledger:
    """Begin a run, with a spool if there is a folder."""
    ledger = database.open(heartbeat=SELDOM, spool_folder=folder)
    run = replace(this_run(name), started_at=database.clock(), **given)
    ledger.begin_run(run, fleet=True, selection={})
    ledger.reserve_spool(2)
    return ledger


def lose(ledger: Ledger, *results: Result, end: bool = True) -> None:
    """Lose the ledger for good before ``results`` come; ``end`` is false for a killed process."""
    ledger._writer._fail(LedgerError("the ledger was lost"), [])
    for each in results:
        ledger.record(each)
    if end:
        spooled = ledger.leave(replace(report(this_run("r1")), forced=70), discovered={})
        assert spooled is not None
        assert spooled.outcomes == sum(each.final for each in results)
    ledger.close()


def imported(database: LedgerDatabase, folder: Path) -> list[Event]:
    """Import as the next command does; return what it tells."""
    told: list[Event] = []
    import_spools(database.open(), folder, told.append)
    return told


def history(database: LedgerDatabase) -> list[tuple[Any, ...]]:
    return sorted(database.rows("SELECT run, tenant, outcome FROM executions"))


def claims(database: LedgerDatabase) -> list[tuple[Any, ...]]:
    return sorted(database.rows("SELECT tenant, run, fence, state FROM claims"))


def totals(database: LedgerDatabase) -> list[tuple[Any, ...]]:
    return sorted(database.rows("SELECT tenant, succeeded, failed, interrupted FROM statistics"))


def test_what_is_spooled_is_what_would_have_been_recorded(
    database: LedgerDatabase, folder: Path
) -> None:
    ledger = begin(database, folder, "r1")
    granted = ledger.claim([ACME, BIRCH, CEDAR])
    failed = result_of(
        granted, BIRCH, outcome=Outcome.FAILED, error="größe: \N{SNOWMAN}\nline", cause="c", code="1",
        counters={"rows": 3},
    )  # fmt: skip
    tried = replace(failed, final=False)
    again = replace(failed, request=replace(failed.request, attempt=2))
    skipped = result_of(granted, CEDAR, outcome=Outcome.SKIPPED, reason="ledger lost")
    lose(ledger, result_of(granted, ACME), tried, again, skipped)

    assert imported(database, folder) == [SpoolImported(run="r1", outcomes=3)]
    assert list(folder.iterdir()) == []
    rows = database.rows(
        "SELECT tenant, outcome, reason, error, cause, code, attempts, counters, duration_seconds"
        " FROM executions ORDER BY tenant"
    )
    error = "größe: \N{SNOWMAN}\nline"
    assert rows == [
        ("acme", "succeeded", None, None, None, None, 1, None, 2.0),
        ("birch", "failed", None, error, "c", "1", 2, '{"rows": 3}', 2.0),
        ("cedar", "skipped", "ledger lost", None, None, None, 1, None, 2.0),
    ]
    assert len(database.rows("SELECT * FROM attempts")) == 4
    # What did not run is free for the next.
    assert claims(database) == [
        ("acme", "r1", 1, "closed"), ("birch", "r1", 1, "closed"), ("cedar", "", 1, "open"),
    ]  # fmt: skip
    assert totals(database) == [("acme", 1, 0, 0), ("birch", 0, 1, 0), ("cedar", 0, 0, 0)]
    assert database.rows("SELECT sum(executions) FROM durations") == [(2,)]
    assert database.rows("SELECT exit_code FROM runs") == [(70,)]
    assert database.rows("SELECT name, value FROM counters") == [(SPOOL_IMPORTED, 3.0)]


def test_a_spool_that_is_imported_twice_counts_once(database: LedgerDatabase, folder: Path) -> None:
    ledger = begin(database, folder, "r1")
    lose(ledger, result_of(ledger.claim([ACME]), ACME))
    (path,) = folder.iterdir()
    content = path.read_bytes()
    imported(database, folder)
    path.write_bytes(content)

    assert imported(database, folder) == [SpoolImported(run="r1", outcomes=0)]
    assert history(database) == [("r1", "acme", "succeeded")]
    assert totals(database) == [("acme", 1, 0, 0)]
    assert database.rows("SELECT sum(executions) FROM durations") == [(1,)]


def test_the_group_whose_commit_failed_is_spooled_and_what_waited_behind_it(
    database: LedgerDatabase, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = begin(database, folder, "r1")
    granted = ledger.claim([ACME, BIRCH, CEDAR])
    lost: list[bool] = []
    ledger._writer._on_lost = lambda: lost.append(True)

    def refuse(*_: Any, **__: Any) -> None:
        raise LedgerError("the lease was lost")

    monkeypatch.setattr(ledger._writer, "_transact", refuse)
    ledger.record(result_of(granted, ACME))
    ledger.record(result_of(granted, BIRCH))
    until(lambda: lost == [True])
    assert ledger.is_lease_over()
    ledger.record(result_of(granted, CEDAR))
    with pytest.raises(LedgerError, match="the lease was lost"):
        ledger.claim([ACME])
    ledger.close()

    assert imported(database, folder) == [SpoolImported(run="r1", outcomes=3)]
    assert [outcome for *_, outcome in history(database)] == ["succeeded"] * 3


def test_an_outcome_that_was_committed_before_the_loss_is_not_recorded_again(
    database: LedgerDatabase, folder: Path
) -> None:
    ledger = begin(database, folder, "r1")
    result = result_of(ledger.claim([ACME]), ACME)
    ledger.record(result)
    ledger.flush()
    lose(ledger, result)

    assert imported(database, folder) == [SpoolImported(run="r1", outcomes=0)]
    assert totals(database) == [("acme", 1, 0, 0)]


def test_the_spool_of_a_run_that_was_found_dead_tells_what_it_did(
    database: LedgerDatabase, folder: Path
) -> None:
    """Another host, which has no access to the folder, has freed its claims."""
    ledger = begin(database, folder, "r1", **ELSEWHERE)
    granted = ledger.claim([ACME, BIRCH])
    database.clock.forward(seconds=21)
    begin(database, None, "r2")
    assert history(database) == [("r1", "acme", "interrupted"), ("r1", "birch", "interrupted")]
    lose(ledger, result_of(granted, ACME))
    imported(database, folder)

    assert history(database) == [("r1", "acme", "succeeded"), ("r1", "birch", "interrupted")]
    assert totals(database) == [("acme", 1, 0, 0), ("birch", 0, 0, 1)]
    assert claims(database) == [("acme", "r1", 1, "closed"), ("birch", "", 1, "open")]
    assert database.rows("SELECT exit_code FROM runs WHERE run = 'r1'") == [(70,)]


def test_a_claim_that_has_moved_on_stays_where_it_is(
    database: LedgerDatabase, folder: Path
) -> None:
    ledger = begin(database, folder, "r1", **ELSEWHERE)
    granted = ledger.claim([ACME, BIRCH])
    database.clock.forward(seconds=21)
    second = begin(database, None, "r2")
    taken = second.claim([ACME, BIRCH])
    later: dict[str, Any] = {
        "run": "r2",
        "outcome": Outcome.FAILED,
        "started_at": NOON + timedelta(seconds=30),
    }
    second.record(result_of(taken, ACME, **later))
    second.flush()
    lose(ledger, result_of(granted, ACME), result_of(granted, BIRCH))
    imported(database, folder)

    assert history(database) == [
        ("r1", "acme", "succeeded"), ("r1", "birch", "succeeded"), ("r2", "acme", "failed"),
    ]  # fmt: skip
    assert claims(database) == [("acme", "r2", 2, "closed"), ("birch", "r2", 2, "open")]
    # The last word is that of the later run.
    assert totals(database) == [("acme", 1, 1, 0), ("birch", 1, 0, 0)]
    last = "SELECT last_outcome, consecutive_failures FROM statistics WHERE tenant = 'acme'"
    assert database.rows(last) == [("failed", 1)]


def test_what_the_run_held_and_the_spool_does_not_know_was_interrupted(
    database: LedgerDatabase, folder: Path
) -> None:
    ledger = begin(database, folder, "r1")
    granted = ledger.claim([ACME, BIRCH])
    lose(ledger, result_of(granted, ACME))
    imported(database, folder)

    assert history(database) == [("r1", "acme", "succeeded"), ("r1", "birch", "interrupted")]
    assert claims(database) == [("acme", "r1", 1, "closed"), ("birch", "", 1, "open")]


def test_a_killed_run_is_buried_after_its_spool_was_imported(
    database: LedgerDatabase, folder: Path
) -> None:
    ledger = begin(database, folder, "r1", **ELSEWHERE)
    granted = ledger.claim([ACME, BIRCH])
    lose(ledger, result_of(granted, ACME), end=False)
    imported(database, folder)
    assert database.rows("SELECT finished_at FROM runs") == [(None,)]
    database.clock.forward(seconds=21)

    second = database.open(heartbeat=SELDOM)
    assert second.begin_run(this_run("r2"), fleet=True, selection={}) == {"r1": 1}
    assert history(database) == [("r1", "acme", "succeeded"), ("r1", "birch", "interrupted")]


def test_the_spool_of_a_live_run_is_left_alone(database: LedgerDatabase, folder: Path) -> None:
    ledger = begin(database, folder, "r1")
    granted = ledger.claim([ACME])
    ledger._writer._fail(LedgerError("the ledger was lost"), [])
    ledger.record(result_of(granted, ACME))

    assert imported(database, folder) == []
    assert history(database) == []
    ledger.close()
    assert imported(database, folder) == [SpoolImported(run="r1", outcomes=1)]


def test_a_ledger_that_began_anew_takes_the_run_and_its_claims(
    database: LedgerDatabase, folder: Path
) -> None:
    ledger = begin(database, folder, "r1")
    lose(ledger, result_of(ledger.claim([ACME]), ACME))
    for table in ("runs", "claims"):
        database.execute(f"DELETE FROM {table}")
    imported(database, folder)

    assert database.rows("SELECT run, exit_code FROM runs") == [("r1", 70)]
    assert claims(database) == [("acme", "r1", 1, "closed")]


def test_a_prepared_value_comes_with_its_outcome(database: LedgerDatabase, folder: Path) -> None:
    ledger = begin(database, folder, "r1")
    prepare = key(FLEET, job="count:prepare")
    granted = ledger.claim([prepare])
    ledger._writer._fail(LedgerError("the ledger was lost"), [])
    ledger.keep_prepared("count", prepare.slot_key, "[1]")
    ledger.record(result_of(granted, prepare, value="[1]"))
    ledger.close()
    imported(database, folder)

    assert database.queries.prepared("count", prepare.slot_key) == "[1]"


ODD: list[dict[str, Any]] = [
    {"counters": {"rows": 10**5000}},
    {"counters": {"x": object()}},
    {"outcome": Outcome.FAILED, "error": "half a pair: \ud800"},
]


@pytest.mark.parametrize("given", ODD, ids=["number", "type", "surrogate"])
def test_an_outcome_that_cannot_be_stored_costs_no_other(
    database: LedgerDatabase, folder: Path, given: dict[str, Any]
) -> None:
    ledger = begin(database, folder, "r1")
    keys = [key(f"t{n}") for n in range(5)]
    granted = ledger.claim(keys)
    lose(ledger, *(result_of(granted, k, **(given if k.tenant == "t3" else {})) for k in keys))

    assert imported(database, folder) == [SpoolImported(run="r1", outcomes=5)]
    rows = database.rows("SELECT tenant, error FROM executions WHERE outcome = 'failed'")
    assert [tenant for tenant, _ in rows] == ["t3"]
    assert rows[0][1].startswith("its outcome could not be recorded: ")


def test_a_ledger_that_is_lost_while_it_imports_keeps_the_file(
    database: LedgerDatabase, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = begin(database, folder, "r1")
    lose(ledger, result_of(ledger.claim([ACME]), ACME))
    broken = database.open()
    broken._writer._fail(LedgerError("the ledger was lost"), [])
    told: list[Event] = []
    import_spools(broken, folder, told.append)

    (warned,) = told
    assert isinstance(warned, Warned)
    assert warned.text.endswith("is left to the next command: the ledger was lost")
    assert imported(database, folder) == [SpoolImported(run="r1", outcomes=1)]


# The file, which does not know what the ledger is.

on_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


@pytest.fixture
def file(database: LedgerDatabase, folder: Path) -> Path:
    """Give the spool of a run with two outcomes."""
    ledger = begin(database, folder, "r1")
    granted = ledger.claim([ACME, BIRCH])
    lose(ledger, result_of(granted, ACME), result_of(granted, BIRCH), end=False)
    (path,) = folder.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    return path


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().rstrip(b"\0").splitlines(keepends=True)


@on_sqlite
def test_a_line_that_was_cut_off_is_none(
    database: LedgerDatabase, folder: Path, file: Path
) -> None:
    first, acme, birch = lines_of(file)
    file.write_bytes(first + acme + birch[:40] + b"\0" * 4096)

    assert imported(database, folder) == [SpoolImported(run="r1", outcomes=1)]
    assert history(database) == [("r1", "acme", "succeeded")]
    assert list(folder.iterdir()) == []


@on_sqlite
@pytest.mark.parametrize("line", [b"garbage\n", b"[]\n", b"{}\n", b'{"job": 1}\n', b"\xff\n"])
def test_a_file_that_cannot_be_read_to_its_end_is_kept(
    database: LedgerDatabase, folder: Path, file: Path, line: bytes
) -> None:
    first, acme, birch = lines_of(file)
    file.write_bytes(first + acme + line + birch)
    done, warned = imported(database, folder)

    assert done == SpoolImported(run="r1", outcomes=1)
    (kept,) = folder.iterdir()
    assert kept.name == "r1.spool.broken"
    assert isinstance(warned, Warned)
    assert str(kept) in warned.text
    assert imported(database, folder) == []


@on_sqlite
@pytest.mark.parametrize("first", [b"garbage\n", b'{"spool": 2}\n', b'{"spool": 1, "run": {}}\n'])
def test_a_file_without_its_run_is_kept_whole(
    database: LedgerDatabase, folder: Path, file: Path, first: bytes
) -> None:
    file.write_bytes(first + lines_of(file)[1])
    (warned,) = imported(database, folder)

    assert isinstance(warned, Warned)
    assert [path.name for path in folder.iterdir()] == ["r1.spool.broken"]
    assert history(database) == []


@on_sqlite
@pytest.mark.parametrize("content", [b"", b"\0" * 4096, b'{"spool": 1'])
def test_an_empty_file_is_removed(
    database: LedgerDatabase, folder: Path, file: Path, content: bytes
) -> None:
    file.write_bytes(content)
    assert imported(database, folder) == []
    assert list(folder.iterdir()) == []


def new_spool(folder: Path) -> Spool:
    row = run_row(this_run("r9"), NOON, SELDOM, fleet=True, selection={})
    return Spool(folder, row)


def test_room_is_reserved_before_it_is_needed_and_a_clean_end_leaves_no_file(
    tmp_path: Path,
) -> None:
    made = new_spool(tmp_path)
    (path,) = tmp_path.iterdir()
    assert path.stat().st_blocks * 512 >= 1024 * 1024
    made.expect(5000)
    assert path.stat().st_blocks * 512 >= 5000 * 1024
    made.expect(10**9)
    assert path.stat().st_size <= 17 * 1024 * 1024
    made.close()
    assert list(tmp_path.iterdir()) == []


def test_more_outcomes_than_were_expected_find_room(tmp_path: Path) -> None:
    made = new_spool(tmp_path)
    none = Claims(granted={}, duplicates={}, held={})
    long = "x" * 2000
    for n in range(1500):
        made.add([result_of(none, key(f"t{n}"), outcome=Outcome.FAILED, error=long)])
    assert made.end({}).outcomes == 1500
    made.close()
    (path,) = tmp_path.iterdir()
    with spool.taken(path) as file:
        assert file is not None
        content = spool.read(file)
    assert len(content.results) == 1500
    assert content.is_intact
    assert json.loads(lines_of(path)[0])["run"]["run"] == "r9"


def test_outcomes_without_room_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = new_spool(tmp_path)

    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    none = Claims(granted={}, duplicates={}, held={})
    made.add(result_of(none, key(f"t{n}"), error="x" * 2000) for n in range(1000))
    spooled = made.end({})
    assert spooled.outcomes > 400
    assert spooled.outcomes + spooled.lost == 1000
    made.close()
