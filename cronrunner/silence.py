"""An end to answers that never end: a timeout of a socket begins anew with each byte."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


@contextmanager
def answering_within(sock: Any) -> Iterator[None]:  # noqa: ANN401 - a socket, or what wraps one
    """Hang up when the body takes longer than the socket's timeout, and raise ``TimeoutError``."""
    seconds = None if sock is None else sock.gettimeout()
    if seconds is None:
        yield
        return
    over = threading.Event()

    def hang_up() -> None:
        over.set()
        with suppress(OSError):
            # That of the socket below: TLS would want to say goodbye.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, hang_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as error:
        if over.is_set():
            raise TimeoutError("timed out") from error
        raise
    finally:
        timer.cancel()
    if over.is_set():
        raise TimeoutError("timed out")
