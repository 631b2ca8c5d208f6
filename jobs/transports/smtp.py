"""E-mail by SMTP, over TLS unless it is switched off, with certificates that are verified."""

from __future__ import annotations

import smtplib
import ssl
from contextlib import suppress
from email.message import EmailMessage
from typing import Final

from cronrunner.silence import answering_within
from jobs.outbox import is_address
from jobs.transports.contract import Failed, Message, Refused, Settings
from jobs.transports.mail import compose

_PERMANENT: Final = 500


class _Plain(smtplib.SMTP):
    """A session in which each reply has come within the timeout, and not only goes on."""

    def getreply(self) -> tuple[int, bytes]:
        """Read a reply, of however many lines."""
        with answering_within(self.sock):
            return super().getreply()


class _Tls(_Plain, smtplib.SMTP_SSL):
    """The same over TLS from the start."""


class Smtp:
    """One session for all messages, opened when the first is sent and again when it is lost."""

    def __init__(self, settings: Settings) -> None:
        """Raises ``ValueError`` for settings that are missing."""
        options = settings.options
        self._host: str = options["smtp_host"]
        self._port: int = options["smtp_port"]
        self._tls: str = options["smtp_tls"]
        self._sender: str = options["mail_from"]
        self._user: str = options["smtp_user"]
        missing = [name for name in ("smtp_host", "mail_from") if not options[name]]
        self._password = settings.secret("SMTP_PASSWORD") if self._user else ""
        if self._user and not self._password:
            missing.append("SMTP_PASSWORD (or SMTP_PASSWORD_FILE) in the environment")
        if missing:
            msg = f"smtp: expected {' and '.join(missing)}, found none"
            raise ValueError(msg)
        if self._user and self._tls == "off":
            msg = "smtp: a password is not sent without TLS; set smtp_tls, or no smtp_user"
            raise ValueError(msg)
        # smtplib raises for these when the first message is sent, which is not to blame.
        if not self._password.isascii():
            raise ValueError("smtp: a password of ASCII is what can be sent, got another")
        _check_host(self._host)
        _check_sender(self._sender)
        self._context = ssl.create_default_context(cafile=options["smtp_ca"] or None)
        self._clock = settings.clock
        self._session: smtplib.SMTP | None = None

    def send(self, message: Message, *, timeout_seconds: float) -> None:
        """Send a message; see ``Transport``."""
        mail = compose(message, sender=self._sender, at=self._clock())
        session = self._connected(timeout_seconds)
        try:
            session.send_message(mail, self._sender, [message.recipient])
        except smtplib.SMTPRecipientsRefused as error:
            (code, _), *_ = error.recipients.values()
            self._judge(code)
        except smtplib.SMTPSenderRefused as error:
            # Of all messages alike, whatever the code is.
            self._drop()
            raise Failed(f"SMTP {error.smtp_code}: the sender was refused", pauses=True) from error
        except smtplib.SMTPResponseException as error:
            self._judge(error.smtp_code)
        except smtplib.SMTPNotSupportedError as error:
            raise Refused("the server takes no address of this kind") from error
        except (OSError, smtplib.SMTPException) as error:
            self._drop()
            raise Failed(_text(error), pauses=_is_silence(error)) from error

    def close(self) -> None:
        """Say goodbye."""
        session, self._session = self._session, None
        if session is not None:
            with suppress(OSError, smtplib.SMTPException):
                session.quit()

    def _connected(self, timeout_seconds: float) -> smtplib.SMTP:
        if self._session is None:
            try:
                self._session = self._open(timeout_seconds)
            except (OSError, smtplib.SMTPException) as error:
                raise Failed(f"cannot connect: {_text(error)}", pauses=True) from error
        if self._session.sock is not None:
            self._session.sock.settimeout(timeout_seconds)
        return self._session

    def _open(self, timeout_seconds: float) -> smtplib.SMTP:
        session: smtplib.SMTP
        if self._tls == "implicit":
            session = _Tls(self._host, self._port, timeout=timeout_seconds, context=self._context)
        else:
            session = _Plain(self._host, self._port, timeout=timeout_seconds)
        try:
            if self._tls == "starttls":
                session.starttls(context=self._context)
            if self._user:
                session.login(self._user, self._password)
            # A server that does not greet back refuses us, and not the first message.
            session.ehlo_or_helo_if_needed()
        except BaseException:
            session.close()
            raise
        return session

    def _judge(self, code: int) -> None:
        """Raise what an answer means. The session goes on, unless the server has ended it."""
        text = f"SMTP {code}"
        if code >= _PERMANENT:
            raise Refused(text)
        # 421 and its like: the next message gets a session of its own.
        self._drop()
        raise Failed(text)

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()


def _check_host(host: str) -> None:
    """Raise ``ValueError`` for what cannot be a host's name."""
    try:
        host.encode("idna")
    except UnicodeError:
        msg = "smtp_host: expected the name of a host, got what is none"
        raise ValueError(msg) from None


def _check_sender(sender: str) -> None:
    """Raise ``ValueError`` for what cannot be the sender of a mail."""
    try:
        mail = EmailMessage()
        mail["From"] = sender
        addresses = mail["From"].addresses
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        addresses = ()
    if len(addresses) != 1 or not is_address(addresses[0].addr_spec):
        msg = "mail_from: expected one e-mail address, with or without a name"
        raise ValueError(msg)


def _is_silence(error: BaseException) -> bool:
    """Tell whether a server said nothing: smtplib makes a lost connection of it."""
    return isinstance(error, TimeoutError) or isinstance(error.__context__, TimeoutError)


def _text(error: BaseException) -> str:
    """Say what went wrong, without what the server quoted."""
    if isinstance(error, smtplib.SMTPResponseException):
        return f"SMTP {error.smtp_code} ({type(error).__name__})"
    if _is_silence(error):
        return "no answer in time"
    return getattr(error, "strerror", None) or type(error).__name__
