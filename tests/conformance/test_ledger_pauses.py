"""Pauses: one for each job, tenant and server, in force until it is over or ended."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from threading import Thread

import pytest

from cronrunner.model import Pause
from tests.conformance.conftest import NOON, LedgerDatabase

HOUR = timedelta(hours=1)


def pause(
    job: str = "",
    tenant: str = "",
    server: str = "",
    *,
    reason: str = "moved",
    until: datetime | None = None,
) -> Pause:
    return Pause(
        job=job, tenant=tenant, server=server, reason=reason, paused_at=NOON, until=until
    )  # fmt: skip


def reasons(database: LedgerDatabase) -> Mapping[tuple[str, str, str], str]:
    return {each.names: each.reason for each in database.queries.pauses(database.clock())}


def test_a_pause_is_given_back_as_it_was_kept(database: LedgerDatabase) -> None:
    ledger = database.open()
    kept = [
        pause(tenant="acme", reason="Wartung: é, 雪, 'quoted'", until=NOON + HOUR / 7),
        pause("billing.charge", "acme", "main"),
        pause(server="main", until=NOON + HOUR),
    ]
    for each in kept:
        ledger.pause(each)

    assert database.queries.pauses(NOON) == sorted(kept, key=lambda each: each.names)


def test_a_pause_of_the_same_names_takes_the_place_of_the_first(database: LedgerDatabase) -> None:
    ledger = database.open()
    ledger.pause(pause("a", "acme", until=NOON + HOUR))
    ledger.pause(pause("a", "acme", reason="longer"))

    assert database.queries.pauses(NOON + 2 * HOUR) == [pause("a", "acme", reason="longer")]


def test_a_pause_that_is_over_is_neither_shown_nor_ended_and_leaves_with_the_next(
    database: LedgerDatabase,
) -> None:
    ledger = database.open()
    ledger.pause(pause("a", until=NOON + HOUR))
    ledger.pause(pause("b", until=NOON + 2 * HOUR))
    database.clock.forward(hours=1)

    assert set(reasons(database)) == {("b", "", "")}
    assert not ledger.unpause(("a", "", ""))
    assert database.queries.snapshot(database.clock).pauses == 1
    ledger.pause(pause("c"))
    assert database.rows("SELECT job FROM pauses ORDER BY job") == [("b",), ("c",)]


def test_only_what_is_named_is_unpaused_and_once(database: LedgerDatabase) -> None:
    ledger = database.open()
    for names in (("a", "", ""), ("a", "acme", ""), ("", "acme", ""), ("", "", "main")):
        ledger.pause(pause(*names))

    assert ledger.unpause(("a", "acme", ""))
    assert not ledger.unpause(("a", "acme", ""))
    assert not ledger.unpause(("b", "", ""))
    assert set(reasons(database)) == {("a", "", ""), ("", "acme", ""), ("", "", "main")}


@pytest.mark.parametrize(
    ("name", "other"),
    [("Acme", "acme"), ("é", "e\N{COMBINING ACUTE ACCENT}"), ("straße", "strasse")],
)
def test_names_are_compared_in_binary(database: LedgerDatabase, name: str, other: str) -> None:
    ledger = database.open()
    ledger.pause(pause(tenant=name, reason="the first"))
    ledger.pause(pause(tenant=other, reason="the other"))

    assert reasons(database) == {("", name, ""): "the first", ("", other, ""): "the other"}
    assert ledger.unpause(("", other, ""))
    assert set(reasons(database)) == {("", name, "")}


def test_of_two_who_pause_the_same_at_once_one_is_last_and_none_fails(
    database: LedgerDatabase,
) -> None:
    ledgers = [database.open(), database.open()]

    def often(number: int) -> None:
        for _ in range(20):
            ledgers[number].pause(pause("a", "acme", reason=f"by {number}"))

    both = [Thread(target=often, args=(number,)) for number in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()

    assert reasons(database)["a", "acme", ""] in {"by 0", "by 1"}
    for ledger in ledgers:
        ledger.flush()
