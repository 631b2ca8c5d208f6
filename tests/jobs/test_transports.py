"""The transports, each against a server of its kind on the loopback."""

import base64
import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cronrunner.http_client import HttpSession
from jobs.comms import OPTIONS
from jobs.transports import TRANSPORTS
from jobs.transports.contract import Failed, Message, Refused, Settings, Throttled, Transport
from jobs.transports.mail import message_id
from tests.jobs.tenant import NOW
from tests.servers import (
    Answer,
    HttpServer,
    MailServer,
    SilentServer,
    free_port,
    write_certificates,
)

ID = "agency_acorn/alert:5:2026-03-01"
Make = Callable[..., Transport]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Make a transport of options and environment."""
    opened: list[Any] = []

    def http() -> HttpSession:
        session = HttpSession(lambda: timedelta(minutes=1))
        opened.append(session)
        return session

    def make(name: str, environ: dict[str, str] | None = None, **options: Any) -> Transport:
        values = {option: known.default for option, known in OPTIONS.items()}
        values |= {"smtp_host": "127.0.0.1", "mail_from": "cron@example.org"}
        values |= {"folder": str(tmp_path / "outbox"), **options}
        settings = Settings(options=values, environ=environ or {}, http=http, clock=lambda: NOW)
        transport = TRANSPORTS[name](settings)
        opened.append(transport)
        return transport

    yield make
    for each in reversed(opened):
        each.close()


def send(transport: Transport, recipient: str, seconds: float = 5.0, **parts: Any) -> None:
    given = {"id": ID, "subject": "Zoë 李 🎁", "body": "Line\n.\nüñí", **parts}
    transport.send(Message(recipient=recipient, **given), timeout_seconds=seconds)


# E-mail


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    write_certificates(folder)
    return folder


@pytest.mark.parametrize("tls", ["off", "starttls", "implicit"])
def test_mail_arrives_with_its_id_over_each_kind_of_tls(
    make: Make, certificates: Path, tls: Any
) -> None:
    with MailServer(certificates=None if tls == "off" else certificates, tls=tls) as server:
        ca = str(certificates / "ca.pem")
        smtp = make("smtp", smtp_port=server.port, smtp_tls=tls, smtp_ca=ca)
        for _ in range(2):
            send(smtp, "a@example.org")

    first, second = server.taken
    assert (
        first["Message-ID"]
        == second["Message-ID"]
        == ("<agency_acorn%2Falert%3A5%3A2026-03-01@example.org>")
    )
    assert (first["To"], first["From"]) == ("a@example.org", "cron@example.org")
    assert first["Subject"] == "Zoë 李 🎁"
    assert first.get_content().replace("\r\n", "\n") == "Line\n.\nüñí\n"


def test_a_server_is_not_trusted_unless_its_certificate_is(make: Make, certificates: Path) -> None:
    unknown = pytest.raises(Failed, match=r"cannot connect: .*CERTIFICATE_VERIFY_FAILED")
    with MailServer(certificates=certificates, tls="starttls") as server, unknown as failed:
        send(make("smtp", smtp_port=server.port), "a@example.org")

    assert failed.value.pauses
    assert server.taken == []


def test_a_server_without_tls_gets_nothing(make: Make) -> None:
    with MailServer() as server, pytest.raises(Failed, match="cannot connect"):
        send(make("smtp", smtp_port=server.port), "a@example.org")

    assert server.taken == []


@pytest.mark.parametrize("password", ["right", "wrong"])
def test_a_login_is_by_a_secret_of_the_environment(
    make: Make, certificates: Path, tmp_path: Path, password: str
) -> None:
    (tmp_path / "password").write_text(f"{password}\n")
    environ = {"SMTP_PASSWORD_FILE": str(tmp_path / "password")}
    login = ("cron", "right")
    with MailServer(certificates=certificates, tls="starttls", login=login) as server:
        smtp = make(
            "smtp", environ, smtp_port=server.port, smtp_user="cron",
            smtp_ca=str(certificates / "ca.pem"),
        )  # fmt: skip
        if password == "right":
            send(smtp, "a@example.org")
        else:
            # No fault of the message: it is not dead for it.
            with pytest.raises(Failed, match="SMTP 535") as failed:
                send(smtp, "a@example.org")
            assert failed.value.pauses
            assert "wrong" not in str(failed.value)

    assert len(server.taken) == (password == "right")


@pytest.mark.parametrize(
    ("options", "environ", "expected"),
    [
        ({"smtp_host": ""}, {}, "expected smtp_host, found none"),
        ({"mail_from": ""}, {}, "expected mail_from, found none"),
        ({"smtp_user": "cron"}, {}, "expected SMTP_PASSWORD"),
        ({"smtp_user": "cron", "smtp_tls": "off"}, {"SMTP_PASSWORD": "x"}, "not sent without TLS"),
    ],
)
def test_settings_that_are_missing_are_named(
    make: Make, options: dict[str, Any], environ: dict[str, str], expected: str
) -> None:
    with pytest.raises(ValueError, match=expected):
        make("smtp", environ, **options)


def test_what_the_server_says_of_an_address_is_final_or_not(make: Make) -> None:
    answers = {"gone@example.org": "550 no such user", "full@example.org": "452 mailbox full"}
    with MailServer(answers=answers) as server:
        smtp = make("smtp", smtp_port=server.port, smtp_tls="off")
        with pytest.raises(Refused, match=r"^SMTP 550$"):
            send(smtp, "gone@example.org")
        with pytest.raises(Failed, match=r"^SMTP 452$") as failed:
            send(smtp, "full@example.org")
        send(smtp, "a@example.org")

    assert not failed.value.pauses
    assert len(server.taken) == 1


def test_a_silent_mail_server_costs_one_timeout(make: Make, silent_server: SilentServer) -> None:
    smtp = make("smtp", smtp_port=silent_server.port)
    began = time.monotonic()
    with pytest.raises(Failed, match="no answer in time") as failed:
        send(smtp, "a@example.org", seconds=0.3)

    assert failed.value.pauses
    assert time.monotonic() - began < 2


def test_a_server_that_is_gone_pauses_the_channel(make: Make) -> None:
    with pytest.raises(Failed, match="cannot connect: Connection refused") as failed:
        send(make("smtp", smtp_port=free_port()), "a@example.org")

    assert failed.value.pauses


def test_a_session_that_was_lost_is_opened_again(make: Make) -> None:
    with MailServer() as server:
        smtp = make("smtp", smtp_port=server.port, smtp_tls="off")
        send(smtp, "a@example.org")
        server.hang_up()
        with pytest.raises(Failed) as failed:
            send(smtp, "a@example.org")
        send(smtp, "a@example.org")

    assert not failed.value.pauses
    assert len(server.taken) == 2


@pytest.mark.parametrize("recipient", ["nobody", "a@b@c", "", "a b@example.org", "a@example.org\n"])
def test_a_bad_recipient_is_refused_before_anything_is_sent(make: Make, recipient: str) -> None:
    with pytest.raises(Refused, match="bad recipient"):
        send(make("smtp", smtp_port=free_port()), recipient)


def test_a_subject_begins_no_header(make: Make) -> None:
    with MailServer() as server:
        smtp = make("smtp", smtp_port=server.port, smtp_tls="off")
        send(smtp, "a@example.org", subject="Hello\r\nBcc: b@example.org")

    (mail,) = server.taken
    assert mail["Subject"] == "Hello Bcc: b@example.org"
    assert mail["Bcc"] is None


@pytest.mark.parametrize("key", ["x" * 191, "é" * 191, "a b<c>@d"])
def test_every_key_makes_an_id_that_a_header_can_hold(make: Make, key: str) -> None:
    name = f"agency/{key}"
    with MailServer() as server:
        smtp = make("smtp", smtp_port=server.port, smtp_tls="off")
        send(smtp, "a@example.org", id=name)

    assert server.taken[0]["Message-ID"] == message_id(name, "cron@example.org")
    assert message_id(name, "x@y") != message_id(name + "1", "x@y")


# Webhooks and Slack


def test_a_webhook_is_signed_so_that_its_receiver_can_tell(
    make: Make, http_server: HttpServer
) -> None:
    webhook = make("webhook", {"WEBHOOK_SECRET": "s3cret"})
    send(webhook, http_server.url("/in"), payload={"name": "李 🎁"})

    (asked,) = http_server.asked
    assert asked.method == "POST"
    assert asked.document == {"name": "李 🎁"}
    assert asked.headers["Content-Type"] == "application/json"
    assert asked.headers["Idempotency-Key"] == asked.headers["Webhook-Id"] == ID
    assert asked.headers["Webhook-Timestamp"] == str(int(NOW.timestamp()))
    signed = f"{ID}.{int(NOW.timestamp())}.".encode() + asked.body
    expected = base64.b64encode(hmac.digest(b"s3cret", signed, hashlib.sha256)).decode()
    assert asked.headers["Webhook-Signature"] == f"v1,{expected}"


def test_a_secret_may_be_written_as_the_specification_has_it(
    make: Make, http_server: HttpServer
) -> None:
    for secret in ("key of bytes", "whsec_" + base64.b64encode(b"key of bytes").decode()):
        send(
            make("webhook", {"OTHER_KEY": secret}, webhook_secret_env="OTHER_KEY"),
            http_server.url(),
        )
    first, second = http_server.asked

    assert first.headers["Webhook-Signature"] == second.headers["Webhook-Signature"]
    with pytest.raises(ValueError, match="expected base64"):
        make("webhook", {"WEBHOOK_SECRET": "whsec_?"})


def test_a_secret_that_was_named_must_be_there(make: Make, http_server: HttpServer) -> None:
    with pytest.raises(ValueError, match="in the environment as OTHER_KEY, found none"):
        make("webhook", webhook_secret_env="OTHER_KEY")
    send(make("webhook"), http_server.url())

    assert "Webhook-Signature" not in http_server.asked[0].headers


def test_a_webhook_without_a_payload_has_subject_and_body(
    make: Make, http_server: HttpServer
) -> None:
    send(make("webhook"), http_server.url())

    assert http_server.asked[0].document == {"subject": "Zoë 李 🎁", "body": "Line\n.\nüñí"}


def test_slack_gets_its_form(make: Make, http_server: HttpServer) -> None:
    slack = make("slack")
    send(slack, http_server.url())
    send(slack, http_server.url(), subject="")
    send(slack, http_server.url(), payload={"blocks": []})

    assert [each.document for each in http_server.asked] == [
        {"text": "*Zoë 李 🎁*\nLine\n.\nüñí"}, {"text": "Line\n.\nüñí"}, {"blocks": []},
    ]  # fmt: skip


def test_what_a_title_says_is_no_command_to_slack(make: Make, http_server: HttpServer) -> None:
    send(make("slack"), http_server.url(), subject="<!channel>", body="R&D <https://a.b|c>")

    (asked,) = http_server.asked
    assert asked.document == {"text": "*&lt;!channel&gt;*\nR&amp;D &lt;https://a.b|c&gt;"}


@pytest.mark.parametrize("name", ["slack", "webhook"])
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (200, None), (204, None), (301, Failed), (400, Refused), (403, Refused), (404, Refused),
        (408, Failed), (410, Refused), (500, Failed), (503, Failed),
    ],
)  # fmt: skip
def test_what_an_answer_means(
    make: Make, http_server: HttpServer, name: str, status: int, error: type[Exception] | None
) -> None:
    http_server.answer("/in", Answer(status, headers={"Location": "/elsewhere"}))
    transport = make(name)
    if error is None:
        send(transport, http_server.url("/in"))
    else:
        with pytest.raises(error, match=f"^HTTP {status}$"):
            send(transport, http_server.url("/in"))

    # Once: neither repeated nor redirected.
    assert len(http_server.asked) == 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("30", 30),
        (None, 60),
        ("soon", 60),
        ("99999999999", 6 * 3600),
        ("-5", 60),
        ("9" * 5000, 60),
        ("Mon, 01 Jan 9999999 00:00:00 GMT", 60),
        (f"Mon, {'9' * 400} Jan 2030 00:00:00", 60),
    ],
)
def test_a_server_may_ask_for_a_pause(
    make: Make, http_server: HttpServer, header: str | None, seconds: int
) -> None:
    headers = {} if header is None else {"Retry-After": header}
    http_server.answer("/", Answer(429, headers=headers))
    with pytest.raises(Throttled) as throttled:
        send(make("slack"), http_server.url())

    assert throttled.value.retry_after == timedelta(seconds=seconds)


def test_a_receiver_that_hangs_or_talks_garbage_has_failed(
    make: Make, http_server: HttpServer
) -> None:
    http_server.answer("/hangs", Answer(after_seconds=30))
    http_server.answer("/garbage", Answer(raw=b"\x00\xff\r\n\r\n"))
    webhook = make("webhook")
    with pytest.raises(Failed, match="no answer in time") as hangs:
        send(webhook, http_server.url("/hangs"), seconds=0.3)
    with pytest.raises(Failed) as garbage:
        send(webhook, http_server.url("/garbage"))
    with pytest.raises(Failed, match="Connection refused") as gone:
        send(webhook, f"http://127.0.0.1:{free_port()}/planted")

    assert [each.value.pauses for each in (hangs, garbage, gone)] == [True, False, False]
    assert "planted" not in str(gone.value)


@pytest.mark.parametrize("url", ["", "#ops", "ftp://127.0.0.1/", "http://", "http://[::1/x"])
def test_what_is_no_url_is_refused(make: Make, url: str) -> None:
    with pytest.raises(Refused):
        send(make("slack"), url)


# Files


def test_files_are_named_after_the_message_and_are_there_once(make: Make, tmp_path: Path) -> None:
    folder = make("file")
    for _ in range(2):
        send(folder, "a@example.org")
        send(folder, "https://example.org/in", payload={"n": 1})

    names = sorted(path.suffix for path in (tmp_path / "outbox" / "agency_acorn").iterdir())
    assert names == [".eml", ".json"]
    (document,) = (tmp_path / "outbox" / "agency_acorn").glob("*.json")
    assert json.loads(document.read_text())["payload"] == {"n": 1}


def test_a_folder_that_cannot_be_written_pauses_the_channel(make: Make, tmp_path: Path) -> None:
    (tmp_path / "outbox").touch()
    with pytest.raises(Failed, match="cannot be written: ") as failed:
        send(make("file"), "a@example.org")

    assert failed.value.pauses


@pytest.mark.parametrize(
    ("options", "password"),
    [
        ({"smtp_host": "mail..example.org"}, "secret"),
        ({"smtp_host": "x" * 70}, "secret"),
        ({"mail_from": "Acme\nX: y <a@example.org>"}, "secret"),
        ({"mail_from": "Acme"}, "secret"),
        ({}, "geheim\u20ac"),
    ],
)
def test_a_setting_with_which_no_mail_could_leave_is_no_fault_of_the_messages(
    make: Make, options: dict[str, str], password: str
) -> None:
    """It is an error of the channel (`ValueError`): messages wait, and none is dead."""
    with pytest.raises(ValueError, match=r"expected|password") as error:
        make("smtp", {"SMTP_PASSWORD": password}, smtp_user="cron", **options)
    assert password not in str(error.value)


def test_a_server_that_refuses_to_be_greeted_has_refused_no_message(make: Make) -> None:
    def refuse() -> None:
        talking, _ = listening.accept()
        with talking:
            talking.sendall(b"220 here\r\n")
            while talking.recv(1000):
                talking.sendall(b"554 not you\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=refuse)
        thread.start()
        smtp = make("smtp", smtp_port=listening.getsockname()[1], smtp_tls="off")
        with pytest.raises(Failed, match="SMTP 554"):
            send(smtp, "a@example.org")
        thread.join()


def _dripping(begin: bytes, drip: bytes) -> Iterator[int]:
    """Give the port of a server that answers everybody so, and never comes to an end."""
    closing = threading.Event()

    def talk() -> None:
        with suppress(OSError):
            while not closing.is_set():
                talking, _ = listening.accept()
                with talking, suppress(OSError):
                    talking.sendall(begin)
                    while not closing.wait(0.1):
                        talking.sendall(drip)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=talk)
        thread.start()
        yield listening.getsockname()[1]
        closing.set()
        socket.create_connection(listening.getsockname()).close()
        thread.join()


@pytest.mark.parametrize(
    ("name", "begin", "drip"),
    [
        ("webhook", b"HTTP/1.1 200 OK\r\nX-Slow: ", b"a"),
        ("webhook", b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        ("smtp", b"", b"220-wait\r\n"),
    ],
)
def test_an_answer_that_never_ends_is_no_answer(
    make: Make, name: str, begin: bytes, drip: bytes
) -> None:
    for port in _dripping(begin, drip):
        transport = make(name, smtp_port=port, smtp_tls="off")
        to = "a@example.org" if name == "smtp" else f"http://127.0.0.1:{port}/"
        since = time.monotonic()
        with pytest.raises(Failed, match="no answer in time") as failed:
            send(transport, to, seconds=0.5)
        assert failed.value.pauses
        assert time.monotonic() - since < 3


def test_a_message_that_was_taken_is_sent_however_slowly_the_server_goes_on(make: Make) -> None:
    begin = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
    for port in _dripping(begin, b"a"):
        since = time.monotonic()
        send(make("webhook"), f"http://127.0.0.1:{port}/", seconds=2)
        assert time.monotonic() - since < 3
