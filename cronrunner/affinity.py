"""Keeps Python's threads on one CPU, and on one that is free.

Threads that take turns at the GIL gain nothing from a second CPU and pay for it: each turn wakes
a thread on another CPU, whose caches hold nothing of what it is about to use. On one CPU a turn
is a switch; ``make bench`` shows what that is worth.

Which CPU
    The one that the run begins on. If somebody else comes to need it and another one is idle,
    all threads move there: ``_Load`` compares what each CPU did in the last second with what
    this process used itself. Of a run with several processes each has one by turns, and stays.

What is not kept there
    A process that a job starts inherits the CPUs of the thread which starts it: that thread is
    given all of them back before it does (an audit hook hears of it) and keeps them. Processes of
    isolated jobs take them back themselves. Work in C
    that gives up the GIL for long would gain by other CPUs: ``runner.one_cpu: false`` is for it.

Where the system has no such calls, or there is one CPU only, nothing is done.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

_LOOK_EVERY_SECONDS: Final = 1.0
#: The part of a CPU that others must take for the threads to leave it, and that must be idle
#: on another one for them to go there.
_CROWDED: Final = 0.25
_FREE: Final = 0.75

_STAT: Final = Path("/proc/stat")
#: The CPU that a thread ran on last: this field of its line, counted behind its name.
_PROCESSOR: Final = 36
_STARTS_A_PROCESS: Final = frozenset(
    {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"}
)


class OneCpu:
    """Keeps the threads of this process on one CPU, as a context manager."""

    def __init__(self, cpu: int | None = None) -> None:
        """With a ``cpu`` they are kept on that one: another process has each of the others."""
        self._allowed = allowed_cpus()
        self._chosen = cpu
        self._cpu = -1
        #: Native ids of threads that have all CPUs back.
        self._released: set[int] = set()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="one-cpu", daemon=True)

    def __enter__(self) -> Self:
        cpu = _current_cpu() if self._chosen is None else self._chosen
        if len(self._allowed) > 1 and cpu in self._allowed:
            self._move(cpu)
            _hear_of_processes(self)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join()
            _place(_threads(), self._allowed)

    def release(self) -> None:
        """Give the calling thread all CPUs back, and what it starts."""
        thread = threading.get_native_id()
        if self._thread.ident is not None and not self._stopped.is_set():
            self._released.add(thread)
            _place([thread], self._allowed)

    def _follow(self) -> None:
        if self._chosen is not None:
            self._stopped.wait()
            return
        before = _Load()
        while not self._stopped.wait(_LOOK_EVERY_SECONDS):
            now = _Load()
            better = now.better_than(self._cpu, before, self._allowed)
            before = now
            if better is not None:
                self._move(better)

    def _move(self, cpu: int) -> None:
        self._cpu = cpu
        _place((each for each in _threads() if each not in self._released), {cpu})


class _Load:
    """What the CPUs and this process have done so far, in seconds."""

    def __init__(self) -> None:
        self._at = time.monotonic()
        self._own = time.process_time()
        self._idle = _idle_seconds()

    def better_than(self, cpu: int, before: _Load, allowed: Collection[int]) -> int | None:
        """Return a CPU that is free if others have crowded ``cpu`` since ``before``."""
        elapsed = self._at - before._at
        idle = {
            each: (seconds - before._idle.get(each, seconds)) / elapsed
            for each, seconds in self._idle.items()
            if each in allowed
        }
        own = (self._own - before._own) / elapsed
        if 1 - idle.get(cpu, 1.0) - own < _CROWDED:
            return None
        freest = max(idle, key=lambda each: idle[each])
        return freest if idle[freest] >= _FREE else None


def allowed_cpus() -> frozenset[int]:
    """Return the CPUs that the calling thread may use; nothing where the system does not say."""
    try:
        return frozenset(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not on this system
        return frozenset()


def _current_cpu() -> int | None:
    try:
        stat = Path("/proc/thread-self/stat").read_text(encoding="utf-8")
        return int(stat.rpartition(")")[2].split()[_PROCESSOR])
    except (OSError, ValueError, IndexError):
        return None


def _idle_seconds() -> Mapping[int, float]:
    """Return how long each CPU has been idle; nothing where the system does not say."""
    try:
        lines = _STAT.read_text(encoding="utf-8").splitlines()
        tick = os.sysconf("SC_CLK_TCK")
        found = (line.split() for line in lines if line.startswith("cpu") and line[3].isdigit())
        return {int(name[3:]): int(times[3]) / tick for name, *times in found}
    except (OSError, ValueError, IndexError):
        return {}


def _threads() -> list[int]:
    return [thread.native_id for thread in threading.enumerate() if thread.native_id is not None]


def _place(threads: Iterable[int], cpus: Collection[int]) -> None:
    for thread in threads:
        # It may have ended meanwhile, and a container may forbid it.
        with suppress(OSError):
            os.sched_setaffinity(thread, cpus)


_hearing: list[OneCpu] = []


def _hear_of_processes(pin: OneCpu) -> None:
    """Release each thread that starts a process. A hook cannot be taken back: there is one."""
    if not _hearing:
        sys.addaudithook(_hear)
    _hearing[:] = [pin]


def _hear(event: str, _: tuple[object, ...]) -> None:
    if event in _STARTS_A_PROCESS:
        for pin in _hearing:
            pin.release()
