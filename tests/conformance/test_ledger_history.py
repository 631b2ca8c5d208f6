"""History is found by whatever is asked for, and is the same however it is looked up."""

from datetime import timedelta
from fnmatch import fnmatchcase
from itertools import product
from random import Random
from typing import Any

import pytest

from cronrunner.ledger import ExecutionFilter, history
from cronrunner.model import Claims, Outcome
from tests.conformance.conftest import NOON, LedgerDatabase, key, result_of

NONE = Claims(granted={}, duplicates={}, held={})

JOBS = ("a.one", "a.two", "b.one", "b:prepare")
TENANTS = ("", "acme", "Acme", "acme_2", "birch", "birchwood", "\U0001f332")
OUTCOMES = (Outcome.SUCCEEDED, Outcome.FAILED, Outcome.SKIPPED, Outcome.TIMED_OUT)

ALL_FILTERS: list[dict[str, Any]] = [
    {"job": job, "tenant": tenant, "outcomes": outcomes, **times}
    for job, tenant, outcomes, times in product(
        (None, "a.one", "a.*", "*one", "none", "no*"),
        (None, "", "acme", "acme*", "*2", "bir?h", "[aA]cme", "\U0001f332*", "none*"),
        ((), ("failed",), ("failed", "timed_out"), ("stuck",)),
        ({}, {"since": NOON + timedelta(minutes=20), "until": NOON + timedelta(minutes=40)}),
    )
]
FILTERS = Random(4711).sample(ALL_FILTERS, 80)


def fits(row: dict[str, Any], wanted: dict[str, Any]) -> bool:
    at = row["started_at"]
    return (
        (wanted["job"] is None or fnmatchcase(row["job"], wanted["job"]))
        and (wanted["tenant"] is None or fnmatchcase(row["tenant"], wanted["tenant"]))
        and (not wanted["outcomes"] or row["outcome"] in wanted["outcomes"])
        and wanted.get("since", at) <= at
        and (wanted.get("until") is None or at < wanted["until"])
    )


@pytest.fixture
def filled(database: LedgerDatabase) -> LedgerDatabase:
    """Have a past of an hour, in which several executions begin at each instant."""
    ledger = database.begin("r", heartbeat=timedelta(hours=1))
    for number, (tenant, job, turn) in enumerate(product(TENANTS, JOBS, range(4))):
        at = NOON + timedelta(minutes=number * 7 % 60)
        outcome = OUTCOMES[number % 5 % 4]
        run = f"r{turn}"
        ledger.record(result_of(NONE, key(tenant, job), run=run, started_at=at, outcome=outcome))
    ledger.flush()
    return database


@pytest.mark.parametrize("limits", [{}, {"_TENANTS": 1}, {"_BRANCHES": 1}, {"PAGE": 3}])
def test_every_filter_gives_what_fits_it_and_the_newest_first(
    filled: LedgerDatabase, limits: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = filled.queries.executions
    everything = list(ask(ExecutionFilter()))
    assert len(everything) == len(TENANTS) * len(JOBS) * 4
    order = [(row["started_at"], row["id"]) for row in everything]
    assert order == sorted(order, reverse=True)

    for name, limit in limits.items():
        monkeypatch.setattr(history, name, limit)
    for wanted in FILTERS:
        expected = [row["id"] for row in everything if fits(row, wanted)]
        assert [row["id"] for row in ask(ExecutionFilter(**wanted))] == expected, wanted
        newest = ask(ExecutionFilter(**wanted, limit=5))
        assert [row["id"] for row in newest] == expected[:5], wanted


def test_a_run_is_given_in_its_order_and_filtered_as_well(filled: LedgerDatabase) -> None:
    ask = filled.queries.executions
    of_run = sorted(
        (row for row in ask(ExecutionFilter()) if row["run"] == "r2"), key=lambda row: row["id"]
    )

    assert list(ask(ExecutionFilter(run="r2"))) == of_run
    assert [row["tenant"] for row in ask(ExecutionFilter(run="r2", job="a.*", tenant="b*"))] == [
        "birch", "birch", "birchwood", "birchwood",
    ]  # fmt: skip
