"""comms.deliver: what is due leaves once, and what cannot leave stops nothing else."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from jobs.schema import outbox
from jobs.transports import fake
from jobs.transports.contract import Failed, Refused, Throttled
from tests.jobs.rows import message
from tests.jobs.tenant import JOBS, NOW, TenantDatabase

JOB = "comms.deliver"
NOTHING = {"sent": 0, "retried": 0, "dead": 0, "throttled": 0, "deferred": 0, "errors": 0}
FAKE: dict[str, Any] = {f"{channel}_transport": "fake" for channel in ("email", "slack", "webhook")}
HOOK = "https://slack.invalid/a"
SECOND = timedelta(seconds=1)


@pytest.fixture(autouse=True)
def _empty_fake() -> Iterator[None]:
    yield
    fake.SENT.clear()
    fake.NEXT.clear()


def deliver(tenant: TenantDatabase, **options: Any) -> dict[str, int]:
    """Run the job; return the counters that are not zero."""
    counters = tenant.run(JOB, **{**FAKE, **options})
    assert counters.keys() == NOTHING.keys()
    return {name: count for name, count in counters.items() if count}


def test_what_is_due_is_sent_in_order_and_what_is_not_waits(tenant: TenantDatabase) -> None:
    tenant.add(
        outbox,
        message(dedupe_key="late", not_before=NOW - SECOND),
        message(dedupe_key="future", not_before=NOW + timedelta(hours=1)),
        message(dedupe_key="early", not_before=NOW - 2 * SECOND, payload={"n": 1}),
    )

    assert deliver(tenant) == {"sent": 2}
    assert [each.id for each in fake.SENT] == ["agency_acorn/early", "agency_acorn/late"]
    assert fake.SENT[0].payload == {"n": 1}
    late, future, early = tenant.rows(outbox)
    assert late["status"] == early["status"] == "sent"
    assert (late["sent_at"], late["attempts"], late["claim_token"]) == (NOW, 1, None)
    assert (future["status"], future["attempts"]) == ("pending", 0)


def test_a_second_run_sends_nothing(tenant: TenantDatabase) -> None:
    tenant.add(outbox, message(), message())
    deliver(tenant)
    before = tenant.content()

    assert deliver(tenant) == {}
    assert tenant.content() == before
    assert len(fake.SENT) == 2


@pytest.mark.parametrize(("wait", "expected"), [(0, {"sent": 1}), (1, {})])
def test_a_message_is_due_at_the_second_it_names(
    tenant: TenantDatabase, wait: int, expected: dict[str, int]
) -> None:
    tenant.add(outbox, message(not_before=NOW + wait * SECOND))

    assert deliver(tenant) == expected


def test_an_empty_outbox_is_no_work(tenant: TenantDatabase) -> None:
    assert tenant.run(JOB) == NOTHING


def test_no_more_than_the_limit_are_sent(tenant: TenantDatabase) -> None:
    tenant.add(outbox, *(message() for _ in range(5)))

    assert deliver(tenant, limit=3) == {"sent": 3}
    assert deliver(tenant, limit=3) == {"sent": 2}


@pytest.mark.parametrize("status", ["sent", "dead", "cancelled"])
def test_what_is_settled_is_left_alone(tenant: TenantDatabase, status: str) -> None:
    tenant.add(outbox, message(status=status))

    assert deliver(tenant) == {}


def test_a_server_that_asks_for_a_pause_stops_its_channel_and_no_other(
    tenant: TenantDatabase,
) -> None:
    slack = [message(channel="slack", recipient=HOOK) for _ in range(3)]
    tenant.add(outbox, *slack, message())
    fake.NEXT[HOOK] = [Throttled(timedelta(seconds=30))]

    assert deliver(tenant) == {"throttled": 1, "deferred": 2, "sent": 1}
    asked, *others, mail = tenant.rows(outbox)
    assert (asked["status"], asked["attempts"]) == ("pending", 0)
    assert asked["not_before"] == NOW + timedelta(seconds=30)
    assert [(each["status"], each["attempts"]) for each in others] == [("pending", 0)] * 2
    assert mail["status"] == "sent"


@pytest.mark.parametrize(
    ("before", "minutes"), [(0, 1), (1, 4), (2, 16), (3, 60)]
)  # fmt: skip
def test_a_failure_waits_longer_each_time(
    tenant: TenantDatabase, before: int, minutes: int
) -> None:
    tenant.add(outbox, message(recipient="a@example.org", attempts=before))
    fake.NEXT["a@example.org"] = [Failed("HTTP 500")]

    assert deliver(tenant) == {"retried": 1}
    (row,) = tenant.rows(outbox)
    assert (row["status"], row["attempts"], row["last_error"]) == (
        "pending", before + 1, "HTTP 500",
    )  # fmt: skip
    assert row["not_before"] == NOW + timedelta(minutes=minutes)
    assert row["claimed_until"] is None


def test_the_last_failure_is_the_end(tenant: TenantDatabase) -> None:
    tenant.add(outbox, message(recipient="a@example.org", attempts=4))
    fake.NEXT["a@example.org"] = [Failed("HTTP 500")]

    assert deliver(tenant) == {"dead": 1}
    (row,) = tenant.rows(outbox)
    assert (row["status"], row["attempts"], row["last_error"]) == ("dead", 5, "HTTP 500")


def test_what_the_server_refuses_is_dead_at_once_with_the_reason(tenant: TenantDatabase) -> None:
    tenant.add(outbox, message(recipient="a@example.org"), message(channel="pigeon"))
    fake.NEXT["a@example.org"] = [Refused("SMTP 550")]

    assert deliver(tenant) == {"dead": 2}
    assert [row["last_error"] for row in tenant.rows(outbox)] == ["SMTP 550", "unknown channel"]


def test_a_server_that_is_silent_pauses_its_channel(tenant: TenantDatabase) -> None:
    tenant.add(outbox, message(recipient="a@example.org"), message(), message(channel="slack"))
    fake.NEXT["a@example.org"] = [Failed("no answer in time", pauses=True)]

    assert deliver(tenant) == {"retried": 1, "deferred": 1, "sent": 1}


def test_the_permits_of_a_minute_are_not_exceeded(tenant: TenantDatabase) -> None:
    tenant.add(outbox, *(message(channel="slack", recipient=HOOK) for _ in range(4)), message())

    assert deliver(tenant, slack_per_minute=3) == {"sent": 4, "deferred": 1}
    assert tenant.rows(outbox)[3]["attempts"] == 0


def test_near_the_end_of_the_timeout_nothing_is_begun(tenant: TenantDatabase) -> None:
    tenant.add(outbox, *(message() for _ in range(3)))
    fake.NEXT["someone@example.org"] = [lambda: None, lambda: clock.append(296)]
    clock = [0]
    counters = tenant.run(JOB, clock=lambda: NOW + clock[-1] * SECOND, **FAKE)

    # Five minutes: what begins with four seconds left does not begin.
    assert (counters["sent"], counters["deferred"]) == (2, 1)


def test_500_messages_with_5_poison_ones(tenant: TenantDatabase) -> None:
    tenant.add(outbox, *(message(recipient=f"u{n}@example.org") for n in range(500)))
    poison: list[Exception] = [
        Refused("SMTP 550"), Refused("bad recipient"), ValueError("planted"), KeyError("planted"),
        UnicodeError("planted"),
    ]  # fmt: skip
    for number, error in enumerate(poison):
        fake.NEXT[f"u{number * 100}@example.org"] = [error]

    with tenant.context(JOB, limit=500, **FAKE) as ctx:
        if tenant.engine.dialect.name == "sqlite":
            # A thousand commits are a thousand waits for the disk.
            ctx.connection.connection.cursor().execute("PRAGMA synchronous=OFF")
        counters = JOBS[JOB].call(ctx)

    assert counters == NOTHING | {"sent": 495, "dead": 5}
    dead = [row for row in tenant.rows(outbox) if row["status"] == "dead"]
    assert [row["last_error"] for row in dead] == [
        "SMTP 550", "bad recipient", "broken: ValueError", "broken: KeyError",
        "broken: UnicodeError",
    ]  # fmt: skip
    assert len({each.id for each in fake.SENT}) == 495
    assert deliver(tenant, limit=500) == {}


def test_a_row_that_cannot_be_read_stops_no_other(tenant: TenantDatabase) -> None:
    if tenant.engine.dialect.name != "sqlite":
        # Other databases let no such row in.
        return
    tenant.add(outbox, message(), message())
    with tenant.engine.begin() as connection:
        connection.execute(text("UPDATE outbox SET payload = 'no JSON' WHERE id = 1"))

    assert deliver(tenant) == {"dead": 1, "sent": 1}


def test_what_was_cut_off_is_sent_again_under_the_same_id_when_its_lease_is_over(
    tenant: TenantDatabase,
) -> None:
    tenant.add(outbox, message(dedupe_key="k", recipient="a@example.org"))
    fake.NEXT["a@example.org"] = [_die]
    with pytest.raises(SystemExit):
        deliver(tenant, lease_s=60)
    (row,) = tenant.rows(outbox)
    assert (row["status"], row["attempts"]) == ("sending", 1)
    assert row["claimed_until"] == NOW + timedelta(seconds=60)

    # Until then another run may be at it.
    at_its_end = tenant.run(JOB, clock=lambda: NOW + timedelta(seconds=60), **FAKE)
    assert at_its_end == NOTHING
    after = tenant.run(JOB, clock=lambda: NOW + timedelta(seconds=61), **FAKE)
    assert after == NOTHING | {"sent": 1}
    assert [each.id for each in fake.SENT] == ["agency_acorn/k"]
    assert tenant.rows(outbox)[0]["attempts"] == 2


def _die() -> None:
    raise SystemExit


def test_what_is_cut_off_each_time_is_given_up(tenant: TenantDatabase) -> None:
    cut_off = {"status": "sending", "claim_token": "x", "claimed_until": NOW - SECOND}
    tenant.add(outbox, message(attempts=5, **cut_off), message(attempts=4, **cut_off))

    assert deliver(tenant) == {"dead": 1, "sent": 1}
    assert tenant.rows(outbox)[0]["last_error"] == "given up: the last try was cut off"


def test_runs_at_the_same_time_send_each_message_once(tenant: TenantDatabase) -> None:
    tenant.add(outbox, *(message(recipient="a@example.org") for _ in range(6)))
    theirs = list[dict[str, int]]()
    # While the first message is on its way another run comes; this one knows of all six.
    fake.NEXT["a@example.org"] = [lambda: theirs.append(tenant.run(JOB, **FAKE))]

    assert deliver(tenant) == {"sent": 1}
    assert theirs == [NOTHING | {"sent": 5}]
    assert len({each.id for each in fake.SENT}) == len(fake.SENT) == 6


def test_a_channel_that_is_not_set_up_is_an_error_and_stops_no_other(
    tenant: TenantDatabase,
) -> None:
    tenant.add(outbox, message(), message(), message(channel="slack", recipient=HOOK))

    assert deliver(tenant, email_transport="smtp") == {"errors": 1, "deferred": 2, "sent": 1}
    assert [row["attempts"] for row in tenant.rows(outbox)] == [0, 0, 1]


def test_an_address_that_is_nested_too_deeply_is_dead_and_stops_no_other(
    tenant: TenantDatabase, tmp_path: Path
) -> None:
    deep = message(not_before=NOW - SECOND, recipient="(" * 250 + "@b")
    tenant.add(outbox, deep, message(not_before=NOW))

    options = {**FAKE, "email_transport": "file", "folder": str(tmp_path)}
    assert tenant.run(JOB, **options) == {**NOTHING, "sent": 1, "dead": 1}


# A server lets no such document in, and no such text.
@pytest.mark.parametrize("tenant", ["sqlite"], indirect=True)
def test_a_payload_that_is_nested_too_deeply_is_dead_and_stops_no_other(
    tenant: TenantDatabase,
) -> None:
    tenant.add(outbox, message(not_before=NOW - SECOND), message(not_before=NOW))
    with tenant.engine.begin() as connection:
        deep = {"deep": "[" * 30_000 + "]" * 30_000}
        connection.execute(text("UPDATE outbox SET payload = :deep WHERE id = 1"), deep)

    assert deliver(tenant) == {"sent": 1, "dead": 1}


@pytest.mark.parametrize("tenant", ["sqlite"], indirect=True)
def test_a_message_at_which_runs_end_comes_last_and_is_given_up(tenant: TenantDatabase) -> None:
    tenant.add(outbox, message(not_before=NOW - SECOND), message(not_before=NOW))
    cut_off = {"status": "sending", "claimed_until": NOW - SECOND, "claim_token": "x"}
    with tenant.engine.begin() as connection:
        connection.execute(outbox.update().where(outbox.c.id == 1).values(cut_off))
        connection.execute(
            text("UPDATE outbox SET body = CAST(x'ff41' AS TEXT), attempts = :n WHERE id = 1"),
            {"n": 1},
        )

    assert tenant.attempt(JOB, **FAKE).outcome == "failed"
    with tenant.engine.begin() as connection:
        statuses = connection.scalars(text("SELECT status FROM outbox ORDER BY id")).all()
    assert statuses == ["sending", "sent"]
    with tenant.engine.begin() as connection:
        connection.execute(outbox.update().where(outbox.c.id == 1).values(attempts=5, **cut_off))
    assert deliver(tenant) == {"dead": 1}
