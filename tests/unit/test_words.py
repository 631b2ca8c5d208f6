"""What a run and its processes say to each other comes over unchanged."""

import pickle
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cronrunner.executors.words import (
    Board,
    may_be_repeated,
    pack_result,
    pack_visit,
    unpack_result,
    unpack_visit,
)
from cronrunner.model import Key, Outcome, Request, Result, RetryPolicy, Tenant, VisitRequest

NOON = datetime(2026, 3, 1, 12, 0, 0, 123457, tzinfo=UTC)
REQUEST = Request(
    key=Key(job="a.b", tenant="acme", slot_key="s"),
    run="r",
    slot=NOON,
    attempt=2,
    fence=3,
    dry_run=True,
)
#: Nothing in it is what it is by default, but for what only the run knows.
FULL = Result(
    request=REQUEST,
    server="main",
    outcome=Outcome.FAILED,
    started_at=NOON,
    duration_seconds=1.5,
    reason="why",
    error="an error",
    cause="a cause",
    code="1205",
    traceback="frames",
    counters={"rows": 3},
    note="half of it",
    rows_changed=4,
    value="[1]",
    unreached=True,
    by_job=True,
    server_fault=True,
    attempted=False,
    transient=True,
    policy=RetryPolicy(attempts=3),
    retry_after=timedelta(seconds=5),
)


def sent(packed: Any) -> Any:
    return pickle.loads(pickle.dumps(packed))


def test_a_result_comes_over_with_everything_that_the_run_does_not_know() -> None:
    packed = sent(pack_result(FULL))

    assert [f.name for f in fields(Result) if getattr(FULL, f.name) == f.default] == ["final"]
    assert unpack_result(packed, REQUEST, "main", RetryPolicy(attempts=3)) == FULL
    assert may_be_repeated(packed)


def test_a_plain_success_is_sent_in_few_bytes() -> None:
    plain = Result(
        request=REQUEST,
        server="main",
        outcome=Outcome.SUCCEEDED,
        started_at=NOON,
        duration_seconds=1.5,
    )
    packed = pack_result(plain)

    assert unpack_result(sent(packed), REQUEST, "main", None) == plain
    assert not may_be_repeated(packed)
    assert len(pickle.dumps(packed)) < 100


def test_a_visit_comes_over_as_it_is() -> None:
    tenant = Tenant(
        name="acme", server="main", database="db", labels={"a": "b"}, timezone="Europe/Berlin"
    )
    other = replace(REQUEST, key=REQUEST.key._replace(job="c"), attempt=1)
    visit = VisitRequest(tenant=tenant, requests=(REQUEST, other))
    handed = unpack_visit(sent(pack_visit(visit, 7, is_awaited=True)))

    assert (handed.tenant, handed.requests) == (visit.tenant, visit.requests)
    assert (handed.place, handed.is_awaited) == (7, True)


def test_places_of_a_board_do_not_touch_each_other() -> None:
    board = Board(memoryview(bytearray(8 * Board.size(3))).cast("Q"))
    board.begin(1, 2)
    board.open(1, 4711)

    assert [board.begun(place) for place in range(3)] == [0, 2, 0]
    assert [board.session(place) for place in range(3)] == [None, 4711, None]
    assert not board.is_draining
    board.clear(1)
    board.drain()
    assert (board.begun(1), board.session(1), board.is_draining) == (0, None, True)
