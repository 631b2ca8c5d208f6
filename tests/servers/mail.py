"""A mail server in a thread: aiosmtpd on a free port of the loopback."""

import asyncio
import email
import email.policy
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Literal, Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.servers.process import HOST, free_port


@dataclass
class MailServer:
    """Takes all mail, but for what `answers` says of an address."""

    #: A folder with `server.pem` and `server.key`.
    certificates: Path | None = None
    tls: Literal["off", "starttls", "implicit"] = "off"
    #: User and password, without which nothing is taken.
    login: tuple[str, str] | None = None
    #: Address -> what is answered to it as a recipient.
    answers: Mapping[str, str] = field(default_factory=dict)
    taken: list[EmailMessage] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._sessions: list[SMTP] = []
        self._controller = _Listening(
            self, hostname=HOST, port=free_port(), ready_timeout=10.0, **self._security()
        )
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        # aiosmtpd itself leaves open whoever is still connected.
        self.hang_up()
        self._controller.stop()

    def hang_up(self) -> None:
        """End all sessions."""
        asyncio.run_coroutine_threadsafe(self._hang_up(), self._controller.loop).result(10)

    async def _hang_up(self) -> None:
        for session in self._sessions:
            if isinstance(session.transport, asyncio.WriteTransport):
                session.transport.abort()
        await asyncio.sleep(0.05)

    @property
    def port(self) -> int:
        port: int = self._controller.port
        return port

    def _security(self) -> dict[str, Any]:
        given: dict[str, Any] = {}
        if self.certificates is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(
                self.certificates / "server.pem", self.certificates / "server.key"
            )
            implicit = self.tls == "implicit"
            given |= {"ssl_context": context} if implicit else {"tls_context": context}
            given["require_starttls"] = self.tls == "starttls"
        if self.login is not None:
            given |= {"authenticator": self._knows, "auth_required": True}
            given["auth_require_tls"] = self.tls == "starttls"
        return given

    def _knows(self, *arguments: Any) -> AuthResult:
        given: LoginPassword = arguments[-1]
        known = self.login == (given.login.decode(), given.password.decode())
        return AuthResult(success=known, handled=False)

    # Called by aiosmtpd.

    def begun(self, session: SMTP) -> SMTP:
        self._sessions.append(session)
        return session

    async def handle_RCPT(  # noqa: N802
        self, _: SMTP, __: Session, envelope: Envelope, address: str, ___: list[str]
    ) -> str:
        if address in self.answers:
            return self.answers[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _: SMTP, __: Session, envelope: Envelope) -> str:  # noqa: N802
        content = envelope.content or b""
        raw = content if isinstance(content, bytes) else content.encode()
        self.taken.append(email.message_from_bytes(raw, policy=email.policy.default))
        return "250 OK"


class _Listening(Controller):
    def factory(self) -> SMTP:
        return self.handler.begun(super().factory())  # type: ignore[no-any-return] # a MailServer
