"""Words between the run and one of its processes, over a socket: each whole, and in order.

Any thread may send; one receives, as much at a time as is there. Either end may be killed in the
middle of a word: what is sent goes in frames so small that the kernel takes each at once or not
at all, and a word of which the rest never came is forgotten when another request's words follow.
"""

from __future__ import annotations

import os
import pickle
import select
import struct
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

#: Bytes that follow, the number of the request, and whether the word ends with them.
_HEAD: Final = struct.Struct("<IIB")
#: Of a frame: a socket takes so many bytes in one piece.
_LARGEST: Final = 16_000
_READ: Final = 65_536
_MORE, _WHOLE, _OVER = range(3)


class Wire:
    """One end."""

    def __init__(self, connection: Connection) -> None:
        # Kept, or it would be closed.
        self._connection = connection
        self._file = connection.fileno()
        self._sending = threading.Lock()
        self._poll = select.poll()
        self._poll.register(self._file, select.POLLIN)
        self._read = bytearray()
        #: What came of a word that is not whole yet, and whose it is.
        self._parts = b""
        self._whose = 0

    def send(self, number: int, word: object) -> None:
        """Send a word of a request; it waits while the other end does not read."""
        data = pickle.dumps(word, pickle.HIGHEST_PROTOCOL)
        with self._sending:
            for start in range(0, len(data), _LARGEST):
                part = data[start : start + _LARGEST]
                is_last = start + _LARGEST >= len(data)
                self._write(number, _WHOLE if is_last else _MORE, part)

    def end(self, number: int) -> None:
        """Say that a request is over; ``None`` is received."""
        with self._sending:
            self._write(number, _OVER, b"")

    def _write(self, number: int, kind: int, part: bytes) -> None:
        frame = memoryview(_HEAD.pack(len(part), number, kind) + part)
        while frame:
            frame = frame[os.write(self._file, frame) :]

    def receive(self, timeout_seconds: float | None = None) -> list[tuple[int, Any]]:
        """Return the words that are there, each with its request; none after the timeout.

        Raises ``EOFError`` when the other end is closed.
        """
        if not self._poll.poll(None if timeout_seconds is None else timeout_seconds * 1000):
            return []
        read = os.read(self._file, _READ)
        if not read:
            raise EOFError
        self._read += read
        return list(self._words())

    def _words(self) -> Iterator[tuple[int, Any]]:
        place = 0
        while len(self._read) - place >= _HEAD.size:
            size, number, kind = _HEAD.unpack_from(self._read, place)
            end = place + _HEAD.size + size
            if len(self._read) < end:
                break
            part = bytes(memoryview(self._read)[place + _HEAD.size : end])
            place = end
            if kind == _OVER:
                yield number, None
                continue
            if number != self._whose:
                self._whose, self._parts = number, b""
            self._parts += part
            if kind == _WHOLE:
                data, self._parts = self._parts, b""
                yield number, pickle.loads(data)  # noqa: S301 - from our own process
        del self._read[:place]
