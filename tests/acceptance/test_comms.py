"""Messages leave by the real command, for servers on the loopback, and each under one id."""

import base64
import hashlib
import hmac
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, insert, select, update

from cronrunner import fleet_outbox
from jobs.schema import outbox
from tests.acceptance.shipped import Shipped, total
from tests.jobs.rows import message
from tests.servers import Answer, Asked, HttpServer, MailServer, write_certificates

DELIVER = ("run", "--json", "comms.deliver")
SECRETS = {"SMTP_PASSWORD": "planted-password", "WEBHOOK_SECRET": "planted-secret"}
PAST = datetime(2026, 3, 1, tzinfo=UTC)


def world_of(
    folder: Path, tenants: int = 1, runner: dict[str, Any] | None = None, **options: Any
) -> Shipped:
    jobs = {"comms.*": {"options": options, "retries": 0}}
    return Shipped(folder, [outbox], tenants=tenants, runner=runner, jobs=jobs)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    write_certificates(folder)
    return folder


@pytest.fixture
def mail_server(certificates: Path) -> Iterator[MailServer]:
    login = ("cron", SECRETS["SMTP_PASSWORD"])
    with MailServer(certificates=certificates, tls="starttls", login=login) as server:
        yield server


def by_smtp(server: MailServer) -> dict[str, Any]:
    return {
        "email_transport": "smtp", "slack_transport": "slack", "webhook_transport": "webhook",
        "smtp_host": "127.0.0.1", "smtp_port": server.port, "smtp_user": "cron",
        "smtp_ca": f"{server.certificates}/ca.pem", "mail_from": "cron@example.org",
    }  # fmt: skip


@pytest.mark.parametrize("processes", [1, 2])
def test_mail_webhooks_and_slack_arrive_and_no_secret_is_left_behind(
    tmp_path: Path,
    mail_server: MailServer,
    http_server: HttpServer,
    processes: int,
) -> None:
    runner = {"concurrency": 2, "processes": processes}
    world = world_of(tmp_path, 2, runner, **by_smtp(mail_server))
    for name in world.names:
        world.add(name, outbox,
            message(dedupe_key="m", recipient=f"{name}@example.org"),
            message(dedupe_key="s", channel="slack", recipient=http_server.url("/slack/planted-hook")),
            message(dedupe_key="w", channel="webhook", recipient=http_server.url("/in"), payload={"n": 1}),
        )  # fmt: skip
    finished = world.run(*DELIVER, env=SECRETS)

    assert finished.code == 0, finished.stderr
    assert total(finished.document, "sent") == 6
    assert sorted((mail["To"], mail["Message-ID"]) for mail in mail_server.taken) == [
        ("t0@example.org", "<t0%2Fm@example.org>"), ("t1@example.org", "<t1%2Fm@example.org>"),
    ]  # fmt: skip
    assert [each.document for each in http_server.asked_at("/slack/planted-hook")] == [
        {"text": "*Hello*\n…"}
    ] * 2
    hooks = http_server.asked_at("/in")
    assert sorted(each.headers["Idempotency-Key"] for each in hooks) == ["t0/w", "t1/w"]
    assert all(is_signed(each, SECRETS["WEBHOOK_SECRET"]) for each in hooks)

    ledger = world.ledger_file.read_bytes()
    for secret in ("planted-password", "planted-secret", "planted-hook"):
        assert secret not in finished.stdout + finished.stderr
        assert secret.encode() not in ledger

    again = world.run(*DELIVER, env=SECRETS)
    assert total(again.document, "sent") == 0
    assert len(mail_server.taken) == 2


def is_signed(asked: Asked, secret: str) -> bool:
    stamp = asked.headers["Webhook-Timestamp"]
    signed = f"{asked.headers['Webhook-Id']}.{stamp}.".encode() + asked.body
    digest = hmac.digest(secret.encode(), signed, hashlib.sha256)
    expected = "v1," + base64.b64encode(digest).decode()
    fresh = abs(int(stamp) - time.time()) < 60
    return fresh and hmac.compare_digest(asked.headers["Webhook-Signature"], expected)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("trouble", ["429", "hangs"])
def test_a_server_that_answers_429_or_hangs_slows_only_its_channel(
    tmp_path: Path, mail_server: MailServer, http_server: HttpServer, processes: int, trouble: str
) -> None:
    answers = {
        "429": Answer(429, headers={"Retry-After": "3600"}),
        "hangs": Answer(after_seconds=60),
    }
    http_server.answer("/slack", answers[trouble])
    options = by_smtp(mail_server) | {"timeout_s": 1}
    world = world_of(tmp_path, 6, {"concurrency": 2, "processes": processes}, **options)
    for name in world.names:
        posts = [message(channel="slack", recipient=http_server.url("/slack")) for _ in range(5)]
        world.add(name, outbox, *posts, message(recipient=f"{name}@example.org"))
    finished = world.run(*DELIVER, env=SECRETS)

    assert finished.code == 0, finished.stderr
    assert len(mail_server.taken) == total(finished.document, "sent") == 6
    # One of each visit that was at it before the first answer came.
    asked = len(http_server.asked_at("/slack"))
    assert 1 <= asked <= 2
    counter = {"429": "throttled", "hangs": "retried"}[trouble]
    assert total(finished.document, counter) == asked
    assert total(finished.document, "deferred") == 30 - asked
    assert finished.document["duration_seconds"] < 6
    tries = [row["attempts"] for name in world.names for row in world.rows(name, outbox)]
    assert sum(tries) == 6 + (asked if trouble == "hangs" else 0)


def test_what_a_killed_run_was_sending_is_sent_again_under_the_same_id(
    tmp_path: Path, http_server: HttpServer
) -> None:
    arrived = threading.Event()

    def answer(_: Asked) -> Answer:
        arrived.set()
        return Answer(after_seconds=0.0 if len(http_server.asked) > 1 else 30.0)

    http_server.answer("/in", answer)
    world = world_of(tmp_path, 1, {"concurrency": 1}, webhook_transport="webhook", lease_s=60)
    world.add(
        "t0", outbox, message(dedupe_key="w", channel="webhook", recipient=http_server.url("/in"))
    )
    with world.started(*DELIVER) as process:
        assert arrived.wait(30)
        process.kill()
        process.wait()
    (row,) = world.rows("t0", outbox)
    assert (row["status"], row["attempts"]) == ("sending", 1)

    # While its lease lasts somebody may still be at it.
    assert total(world.run(*DELIVER).document, "sent") == 0
    world.do("t0", update(outbox).values(claimed_until=PAST))
    assert total(world.run(*DELIVER).document, "sent") == 1
    assert [each.headers["Idempotency-Key"] for each in http_server.asked] == ["t0/w"] * 2
    assert world.rows("t0", outbox)[0]["status"] == "sent"


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_the_outbox_of_the_fleet_is_delivered_within_the_same_limits(
    tmp_path: Path, http_server: HttpServer, isolation: str
) -> None:
    runner = {"concurrency": 2, "isolation": isolation}
    world = world_of(tmp_path, 1, runner, webhook_transport="webhook", webhook_per_minute=3)
    assert world.run("run", "--json", "comms.deliver_fleet").code == 0
    hook = {"channel": "webhook", "recipient": http_server.url("/in")}
    engine = create_engine(f"sqlite:///{world.ledger_file}")
    with engine.begin() as connection:
        for number in range(2):
            connection.execute(
                insert(fleet_outbox).values(message(dedupe_key=f"f{number}", **hook))
            )
    world.add("t0", outbox, *(message(**hook) for _ in range(2)))
    finished = world.run("run", "--json", "comms.deliver", "comms.deliver_fleet")

    assert finished.code == 0, finished.stderr
    assert total(finished.document, "sent") == 3
    assert total(finished.document, "deferred") == 1
    names = {each.headers["Idempotency-Key"] for each in http_server.asked}
    assert names & {"-/f0", "-/f1"}
    with engine.connect() as connection:
        statuses = list(connection.execute(select(fleet_outbox.c.status)).scalars())
    engine.dispose()
    assert statuses.count("sent") == len(names & {"-/f0", "-/f1"})


def test_a_delivery_is_refused_in_a_dry_run_and_a_fleet_goes_on_without_it(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    world.add("t0", outbox, message())

    assert world.run("run", "--json", "--dry-run", "comms.deliver").code == 2
    dry = world.run("run", "--json", "--dry-run")
    assert dry.execution("comms.deliver", "t0")["reason"].startswith("dry run: it declares effects")
    assert world.rows("t0", outbox)[0]["status"] == "pending"


def test_check_has_nothing_to_say_against_the_delivery(tmp_path: Path) -> None:
    checked = world_of(tmp_path).run("check", "--json")

    assert checked.code == 0, checked.stdout
    assert not [each for each in checked.document["warnings"] if "comms" in str(each)]
