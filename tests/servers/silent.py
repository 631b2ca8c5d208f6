"""A server that says nothing."""

import socket
import threading
from contextlib import suppress

from tests.servers.process import HOST


class SilentServer:
    """Accepts every connection and never says a word, as a hung database does."""

    def __init__(self) -> None:
        self._listener = socket.create_server((HOST, 0), backlog=512)
        self._accepted: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True, name="silent-server")
        self._thread.start()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def connections(self) -> int:
        """How many have connected so far."""
        return len(self._accepted)

    def url(self, user: str = "nobody", password: str = "none", database: str = "") -> str:
        return f"mysql+pymysql://{user}:{password}@{HOST}:{self.port}/{database}".rstrip("/")

    def close(self) -> None:
        # Closing alone does not wake up a thread in accept().
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for accepted in self._accepted:
            accepted.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self._accepted.append(self._listener.accept()[0])
