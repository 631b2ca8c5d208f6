"""Commands as processes of their own, forked from one that has imported everything already.

Half of what a command costs is the start of Python and its imports, and the tests run more than a
thousand of them. What is forked here is a process like any other: with its own PID, environment,
folder, standard streams and signals. `test_first_process`, `test_startup` and the demo start Python
itself.
"""

import json
import os
import random
import runpy
import signal
import socket
import subprocess
import sys
import threading
from typing import Any, NoReturn

_SERVER = "from tests.acceptance.forking import serve; serve()"


class Command(subprocess.Popen[str]):
    """`python -m cronrunner` with arguments, as `Popen` would start it."""

    def _execute_child(self, arguments: Any, *given: Any) -> None:
        """Have it forked; `given` is as in Python's own."""
        cwd, env, to_parent = given[4], given[5], given[9:15]
        stdin, stdout, stderr = to_parent[0], to_parent[3], to_parent[5]
        self._ended, status = os.pipe()
        asked = json.dumps({"arguments": arguments, "cwd": str(cwd), "env": env}).encode()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(_address())
            socket.send_fds(connection, [asked], [stdin, stdout, stderr, status])
            self.pid = int(connection.recv(16))
        self._child_created = True
        for each in (stdin, stdout, stderr, status):
            os.close(each)

    def _internal_poll(self, _deadstate: Any = None, *_: Any, **__: Any) -> Any:
        return super()._internal_poll(_deadstate, _waitpid=self._waitpid)  # type: ignore[misc]

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        return self._waitpid(self.pid, wait_flags)

    def _waitpid(self, pid: int, flags: int) -> tuple[int, int]:
        """Wait for the status as `os.waitpid` would, if it were our child."""
        os.set_blocking(self._ended, not flags & os.WNOHANG)
        try:
            status = os.read(self._ended, 16)
        except BlockingIOError:
            return 0, 0
        os.close(self._ended)
        return pid, int(status)


#: What forks for this process, once it is asked for; its standard input ends when this process does.
_servers: list[tuple[subprocess.Popen[str], str]] = []
_one_starts = threading.Lock()


def _address() -> str:
    """Return where to ask, and start what answers if nobody has done so."""
    with _one_starts:
        if not _servers:
            server = subprocess.Popen(
                [sys.executable, "-c", _SERVER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert server.stdout is not None
            _servers.append((server, "\0" + server.stdout.readline().strip()))
    return _servers[0][1]


# In the process that forks.


def serve() -> NoReturn:
    """Fork whatever is asked for, until standard input ends."""
    import cronrunner.app.starting
    import cronrunner.cli.commands
    import cronrunner.cli.running
    import cronrunner.databases.mysql
    import cronrunner.databases.sqlite  # noqa: F401 - for the commands

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        name = f"cronrunner-tests-{os.getpid()}"
        listener.bind(f"\0{name}")
        listener.listen()
        print(name, flush=True)
        # Nobody waits for those who wait for the commands.
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        _end_with_stdin()
        while True:
            connection, _ = listener.accept()
            if not os.fork():
                listener.close()
                _start(connection)
            connection.close()


def _end_with_stdin() -> None:
    """Let the kernel end this process with the one that has the other end of its input."""
    import fcntl

    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)


def _start(connection: socket.socket) -> NoReturn:
    """Start one command, and say how it has ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    asked, files, *_ = socket.recv_fds(connection, 1 << 20, 4)
    *streams, ended = files
    pid = os.fork()
    if not pid:
        connection.close()
        os.close(ended)
        _become(json.loads(asked), streams)
    for each in streams:
        os.close(each)
    connection.send(str(pid).encode())
    connection.close()
    _, status = os.waitpid(pid, 0)
    os.write(ended, str(status).encode())
    os._exit(0)


def _become(asked: dict[str, Any], streams: list[int]) -> NoReturn:
    for number, each in enumerate(streams):
        os.dup2(each, number)
        os.close(each)
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    random.seed()
    # Python 3.11 goes on with the parent's number of the thread.
    threading.main_thread()._set_native_id()  # type: ignore[attr-defined]
    sys.argv[:] = asked["arguments"]
    runpy.run_module("cronrunner", run_name="__main__", alter_sys=True)
    sys.exit(0)
