"""A program in a folder of its own, which dies with the process that started it."""

import fcntl
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Self

HOST = "127.0.0.1"
CACHE = Path(__file__).resolve().parents[2] / ".cache"

_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_PATH = os.pathsep.join(
    [
        str(CACHE / "servers/usr/bin"),  # what `make servers` unpacks and does not install
        os.environ.get("PATH", os.defpath),
        "/usr/sbin",  # where Debian keeps mariadbd; not on every user's path
    ]
)
# Not pytest's random numbers: those are seeded alike in every worker.
_random = secrets.SystemRandom()


def program(name: str) -> str:
    """Return the path of a program, or fail: a server that is missing is never a skipped test."""
    found = shutil.which(name, path=_PATH)
    if found is None:
        raise RuntimeError(f"{name} is not on this machine; run `make servers`")
    return found


def free_port() -> int:
    """Return a free port below the range that the kernel gives to clients.

    So a server that was stopped finds its port still free when it starts again.
    """
    while True:
        port = _random.randrange(15_000, 32_000)
        with closing(socket.socket()) as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port


class Process:
    """A program in a folder of its own, which does not outlive the process that starts it."""

    def __init__(self, kind: str) -> None:
        self.folder = make_folder(kind)
        self.output = self.folder / "output.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError(f"{type(self).__name__} is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Ask the server to end, and wait until it has."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: the server has no say in it."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """SIGSTOP: the kernel still accepts connections, the server says nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def remove(self) -> None:
        """End the server and delete its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _run(self, command: Sequence[str], is_ready: Callable[[], bool]) -> None:
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                # Not preexec_fn, which is unsafe in a process with threads.
                ["setpriv", "--pdeathsig", "KILL", "--", *command],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # An interrupt on the terminal is for the tests, which then stop their servers.
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not is_ready():
            if not self.running or time.monotonic() > deadline:
                self.kill()
                said = self.output.read_text(errors="replace")[-4000:]
                raise RuntimeError(f"{type(self).__name__} did not start:\n{said}")
            time.sleep(0.02)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(how)
            self._process.send_signal(signal.SIGCONT)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def make_folder(kind: str) -> Path:
    _sweep()
    folder = CACHE / "run" / f"{os.getpid()}-{kind}-{secrets.token_hex(3)}"
    folder.mkdir(parents=True)
    return folder


def _sweep() -> None:
    """Delete the folders of test processes which are gone; their servers died with them."""
    for folder in (CACHE / "run").glob("*-*"):
        if not Path("/proc", folder.name.partition("-")[0]).exists():
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
