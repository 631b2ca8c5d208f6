"""What stands between a client and a MariaDB: it counts what goes by, and may answer for the server."""

import socket
import threading
from contextlib import suppress

from tests.servers.mariadb import MariaDB
from tests.servers.process import HOST

_QUIT = 0x01
_PING = 0x0E
_RESET_CONNECTION = 0x1F


class Proxy:
    """Forwards to a server, without TLS. ``swallows_resets``: it passes on a ping instead."""

    def __init__(self, server: MariaDB, *, swallows_resets: bool = False) -> None:
        self.resets = 0
        #: How often a client has sent something after it had heard from the server, or at first.
        self.round_trips = 0
        self._swallows = swallows_resets
        self._is_silent = False
        self._target = (HOST, server.port)
        self._listener = socket.create_server((HOST, 0), backlog=64)
        self._sockets: list[socket.socket] = []
        #: Server-side sockets on which the client has spoken last.
        self._asked: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True, name="proxy").start()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def cut(self) -> None:
        """End all connections that are there."""
        sockets, self._sockets = self._sockets, []
        for each in sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def fall_silent(self) -> None:
        """Accept and answer nothing any more."""
        self._is_silent = True

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._sockets += [client, server]
                for pump in (self._ask, self._answer):
                    threading.Thread(target=pump, args=(client, server), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError), client:
            while data := client.recv(65536):
                server.sendall(self._seen(server, bytearray(data)))
            server.shutdown(socket.SHUT_WR)

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError), server:
            while (data := server.recv(65536)) and not self._is_silent:
                with self._lock:
                    self._asked.discard(server)
                client.sendall(data)
            if not self._is_silent:
                client.shutdown(socket.SHUT_WR)

    def _seen(self, server: socket.socket, data: bytearray) -> bytearray:
        """Look at the commands of a write, which is never parted on the loopback."""
        place, is_asked = 0, False
        while place + 4 < len(data):
            length = int.from_bytes(data[place : place + 3], "little")
            is_command, command = data[place + 3] == 0, data[place + 4]
            is_asked = is_asked or not (is_command and command == _QUIT)
            if is_command and command == _RESET_CONNECTION and length == 1:
                self.resets += 1
                if self._swallows:
                    data[place + 4] = _PING
            place += 4 + length
        with self._lock:
            if is_asked and server not in self._asked:
                self._asked.add(server)
                self.round_trips += 1
        return data
