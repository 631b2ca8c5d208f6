"""A session with MySQL or MariaDB that can be made as good as new, and passed on.

How it is made new
    ``COM_RESET_CONNECTION`` rolls back and clears variables, temporary tables, locks, prepared
    statements and the character set. It does not clear the database, the role, and what the driver
    remembers on its side. So a database, names, autocommit and the role follow it in the same
    write, and the visit gets another object over the same socket, made as the first one was;
    whoever has kept the old one, or a cursor of it, has something closed.

What is written ahead
    The last commit of a job takes the reset along in its own write (``foresee``): the server is at
    work on it while we record the outcome. Its replies are read before anything else is sent.

Every reply is read: a command that fails in the middle leaves the replies of the others, and who
did not read them would take them for answers to his own. Nothing of a job is ever sent behind a
change of the database.

All of this uses the driver's private parts, since it has no public call for any of it; without
them ``retire`` gives nothing, and each visit connects. ``test_sessions`` notices.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import pymysql
from pymysql.charset import charset_by_name
from pymysql.constants import COMMAND, SERVER_STATUS

#: COM_RESET_CONNECTION: the driver has no constant and no call for it.
_COM_RESET_CONNECTION: Final = 0x1F

_RESET: Final = struct.pack("<iB", 1, _COM_RESET_CONNECTION)
_QUIT: Final = struct.pack("<iB", 1, COMMAND.COM_QUIT)
_COMMIT: Final = struct.pack("<iB", 7, COMMAND.COM_QUERY) + b"COMMIT"

#: A reply of seven bytes that says that all went well: of no row, no number and no warning.
_PLAIN_OK: Final = b"\x07\0\0\x01\0\0\0"
_OK_SIZE: Final = 11

#: How long a server may take to hang up.
_GOODBYE_SECONDS: Final = 0.2

#: What belongs to a socket, and not to whoever has it.
_PLACES: Final = ("_sock", "_rfile")
#: What leaves nothing behind that a reset does not clear. The driver sends others only when a job
#: reaches for its private parts.
_ORDINARY: Final = frozenset({COMMAND.COM_QUERY, COMMAND.COM_PING, COMMAND.COM_INIT_DB})
#: What the driver changes in place.
_COPIED: Final = ("encoders", "decoders")


class Session(pymysql.connections.Connection):
    """A session that is told in one round trip what it begins with."""

    # The driver's own, which its published types leave out.
    _sock: Any
    _closed: bool
    _force_close: Callable[[], None]
    _rfile: Any
    _result: Any
    _current_timeout: Any
    _read_timeout: Any
    _next_seq_id: int
    server_status: int
    _write_bytes: Callable[[bytes], None]
    _read_ok_packet: Callable[[], Any]

    #: Replies that are on their way and must be read first.
    _ahead = 0
    #: The entry that was written ahead along with the reset, if one was.
    _entered: bytes | None = None
    #: What the next commit takes along.
    _after_commit: bytes | None = None
    _replies_after_commit = 0
    #: Calls that are at work on the session.
    _inside = 0
    #: Something was done that a reset may not clear.
    _is_odd = False

    def __init__(self, *, begin: str, role: str = "", **arguments: Any) -> None:  # noqa: ANN401 - the driver's
        """``begin`` assigns variables, for SET; ``role`` is a statement that takes the role."""
        self._begin = begin
        self._role = role
        self._names = arguments["charset"], arguments.get("collation")
        self._database: str = arguments.get("database") or ""
        super().__init__(**arguments)

    def connect(self, sock: socket.socket | None = None) -> None:
        """Connect; the driver then sets the character set."""
        self._begun = False
        #: What the driver knew when the session was new; nothing until ``remember``.
        self._pristine: dict[str, Any] = {}
        super().connect(sock)
        self._begun = True

    def set_character_set(self, charset: str, collation: str | None = None) -> None:
        """Set the character set; when the driver connects, all else along with it."""
        if self._begun:
            super().set_character_set(charset, collation)
            return
        self.charset, self.collation = self._names
        self.encoding = charset_by_name(self.charset).encoding
        self.query(self._beginning())

    def _beginning(self) -> str:
        charset, collation = self._names
        collate = f" COLLATE {collation}" if collation else ""
        return f"SET NAMES {charset}{collate}, {self._begin}"

    def remember(self) -> None:
        """Keep what the driver knows now, as that of a new session."""
        kept = {name: value for name, value in self.__dict__.items() if name not in _PLACES}
        del kept["_pristine"]
        self._pristine = _with_copies(kept)

    # What a job does.

    def query(self, sql: Any, unbuffered: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002 - the driver's
        """Execute a statement."""
        self._inside += 1
        try:
            return super().query(sql, unbuffered)
        finally:
            self._inside -= 1

    def commit(self) -> None:
        """Commit; take along what was foreseen."""
        after, self._after_commit = self._after_commit, None
        if after is None or self._ahead or not self._is_read():
            self._entered = None
            super().commit()
            return
        self._result = None
        self._write_bytes(_COMMIT + after)
        self._ahead = self._replies_after_commit
        self._reply()

    def close(self) -> None:
        """Say goodbye, and wait until the server has hung up: it counts the session until then."""
        if self._closed or self._sock is None:
            super().close()
            return
        self._closed = True
        with suppress(pymysql.Error, OSError):
            self._write_bytes(_QUIT)
            self._sock.settimeout(_GOODBYE_SECONDS)
            self._sock.recv(1)
        self._force_close()

    def _execute_command(self, command: int, sql: Any) -> None:  # noqa: ANN401 - the driver's
        if self._ahead:
            # It comes after the job's own commit: whatever it is, it undoes the reset.
            self._read_ahead()
            self._entered = None
        if command not in _ORDINARY:
            self._is_odd = True
        super()._execute_command(command, sql)  # type: ignore[misc] # as above

    # What is done between two jobs.

    def foresee(self, *, more: bool) -> None:
        """Let the next commit take the reset along; if there is ``more``, the entry as well."""
        if not self._pristine:
            return
        database = self._pristine["_database"]
        self._entered = self._entry(database) if more and database else None
        self._after_commit = _RESET + (self._entered or b"")
        self._replies_after_commit = 1 + (self._entry_replies() if self._entered else 0)

    def retire(self, *, proving: bool = False) -> Session | None:
        """Take the session from whoever has it: give another object for it, not yet entered.

        ``None`` when anything about it is odd, and it has to be closed: it is closed already, a
        result was not read to its end, a transaction was left open (unless this is the proof
        that a reset ends it), somebody is using it.
        """
        try:
            in_transaction = self.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS
            if in_transaction and not proving:
                return None
            if self._sock is None or self._is_odd or not self._is_read():
                return None
            heir = self._heir()
            if self._inside:
                # Somebody is in the middle of a call: what it reads would be ours.
                heir.close()
                return None
            heir.send_reset()
        except (AttributeError, KeyError, TypeError, pymysql.Error):
            return None
        return heir

    def send_reset(self) -> None:
        """Send the reset, unless it is on its way."""
        if not self._ahead:
            self._write_bytes(_RESET)
            self._ahead, self._entered = 1, None

    def _heir(self) -> Session:
        heir = object.__new__(type(self))
        heir.__dict__.update(_with_copies(self._pristine))
        heir._pristine = self._pristine
        heir._ahead, self._ahead = self._ahead, 0
        heir._entered = self._entered
        heir._current_timeout = self._current_timeout
        heir._sock, self._sock = self._sock, None
        heir._rfile, self._rfile = self._rfile, None
        self._closed = True
        return heir

    def enter(self, database: str, begin: str) -> None:
        """Make a retired session as good as new on ``database``. Raises the driver's error."""
        same = begin == self._begin and self._entered is not None
        if not (same and database == self._database):
            if self._entered is not None:
                # It was entered for another turn.
                self._read_ahead()
                self._write_bytes(_RESET)
                self._ahead = 1
            named = {"_begin": begin, "_database": database, "db": database}
            self._pristine = {**self._pristine, **named}
            self.__dict__.update(named)
            self._write_bytes(self._entry(database))
            self._ahead += self._entry_replies()
        self._entered = None
        self._read_ahead()

    def _entry(self, database: str) -> bytes:
        commands = [_command(COMMAND.COM_INIT_DB, database), _query(self._beginning())]
        if self._role:
            commands.append(_query(self._role))
        return b"".join(commands)

    def _entry_replies(self) -> int:
        return 3 if self._role else 2

    def _read_ahead(self) -> None:
        """Read all replies that are due. Raises the first error among them."""
        error: pymysql.Error | None = None
        while self._ahead:
            self._ahead -= 1
            try:
                self._reply()
            except pymysql.Error as failed:
                if self._sock is None:
                    self._ahead = 0
                    raise
                error = error or failed
        if error is not None:
            raise error

    def _reply(self) -> None:
        """Read one reply. Raises the server's error."""
        self._next_seq_id = 1
        if not self._read_plain_ok():
            self._read_ok_packet()

    def _read_plain_ok(self) -> bool:
        """Read the reply of the shortest form, if it is one, without taking it all apart."""
        if self._current_timeout != self._read_timeout:
            return False
        try:
            reply = self._rfile.peek(_OK_SIZE)[:_OK_SIZE]
        except OSError:
            # The driver meets it again, and says what it means.
            return False
        if len(reply) < _OK_SIZE or not reply.startswith(_PLAIN_OK):
            return False
        self._rfile.read(_OK_SIZE)
        self._next_seq_id += 1
        self.server_status = int.from_bytes(reply[7:9], "little")
        return True

    def _is_read(self) -> bool:
        result = self._result
        return result is None or not (result.unbuffered_active or result.has_next)


def _with_copies(known: Mapping[str, Any]) -> dict[str, Any]:
    return {**known, **{name: dict(known[name]) for name in _COPIED}}


def _command(command: int, text: str) -> bytes:
    payload = text.encode()
    return struct.pack("<iB", len(payload) + 1, command) + payload


def _query(text: str) -> bytes:
    return _command(COMMAND.COM_QUERY, text)
