"""Ways of doing one thing for each tenant, in turns."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from benchmarks.fleet import Fleet, Setting
from benchmarks.jobs import STATEMENT, Work
from benchmarks.measuring import Round, Sample, python, run
from benchmarks.tables import Ratio, Row, rate, title


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One of those that have their turns."""

    key: str
    name: str
    measure: Callable[[], Sample]
    #: Why it is not measured.
    absent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Ways of doing the same, and how they compare."""

    title: str
    unit: str
    ways: Sequence[Way]
    ratios: Sequence[Ratio] = ()

    def turn(self, *, backwards: bool) -> Iterator[tuple[str, Sample]]:
        """Let each have its turn; every other round from the end, so that none is always first."""
        for way in reversed(self.ways) if backwards else self.ways:
            if not way.absent:
                yield way.key, way.measure()

    def rows(self, rounds: Sequence[Round]) -> Iterator[Row]:
        """Return the part of the table."""
        yield title(self.title)
        for way in self.ways:
            yield rate(rounds, way.key, name=way.name, unit=self.unit, absent=way.absent)

    def ratio_rows(self, rounds: Sequence[Round]) -> Iterator[Row]:
        """Return how those compare that are compared at all."""
        absent = {way.key: way.absent for way in self.ways}
        for each in self.ratios:
            if each.above in absent and absent.keys() & set(each.below):
                yield each.row(rounds, absent=absent[each.above])


def loop(  # noqa: PLR0913 - what a loop is told, each by name
    key: str,
    name: str,
    fleet: Fleet,
    *,
    tenants: int,
    threads: int = 1,
    each: int = 1,
    absent: str = "",
) -> Way:
    """Return one of `benchmarks.loops`, which does ``each`` executions on a tenant."""

    def measure() -> Sample:
        arguments = (key, fleet.server.url(), str(tenants), str(threads))
        return _measured("benchmarks.loops", arguments, fleet, tenants * each)

    return Way(key=f"{key} {threads}", name=name, measure=measure, absent=absent)


def queue(pool: str, name: str, fleet: Fleet, broker: str | None, *, workers: int) -> Way:
    """Return one message per tenant to a worker with this pool."""
    tenants = len(fleet.tenants)

    def measure() -> Sample:
        arguments = (pool, fleet.server.url(), str(tenants), str(workers), broker or "")
        return _measured("benchmarks.queueing", arguments, fleet, tenants)

    absent = "not installed" if broker is None else ""
    return Way(key=f"celery {pool}", name=name, measure=measure, absent=absent)


def command_line(fleet: Fleet, *, tenants: int, processes: int) -> Way:
    """Return the client that is installed with the server, started by xargs for each tenant."""
    server = fleet.server
    client = ["mariadb", "--no-defaults", "--host=127.0.0.1", f"--port={server.port}"]
    client += [f"--user={server.admin}", "--skip-ssl", "--skip-column-names"]
    command = ["xargs", "-P", str(processes), "-I{}", *client, f"--execute={STATEMENT}", "{}"]

    def measure() -> Sample:
        before = fleet.statements()
        names = "\n".join(fleet.tenants[:tenants])
        path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/bin"])
        done = run(command, text=names, MYSQL_PWD=server.password, PATH=path)
        return Sample(
            count=tenants,
            seconds=done.wall_seconds,
            cpu_seconds=done.cpu_seconds,
            statements=fleet.statements() - before - 1,
            whole_seconds=done.wall_seconds,
        )

    name = f"`xargs -P {processes}` over the command-line client"
    return Way(key="xargs", name=name, measure=measure)


def ideal(key: str, name: str, *, count: int, seconds: float) -> Way:
    """Return what nothing can be faster than."""
    return Way(key=key, name=name, measure=lambda: Sample(count=count, seconds=seconds))


class Cronrunner:
    """Makes ways of cronrunner on one fleet, and knows what their starts cost."""

    def __init__(self, fleet: Fleet, starts: int = 1) -> None:
        """Each start is measured so often; the middle one counts."""
        self.fleet = fleet
        self._tries = starts
        self._starts: dict[tuple[Work, Setting], Sample] = {}

    def way(self, key: str, work: Work, setting: Setting, *, absent: str = "") -> Way:
        """Return a run of ``work`` in this setting."""
        return Way(
            key=key,
            name=f"cronrunner, {setting}" if str(setting) else "cronrunner",
            measure=lambda: self.measure(work, setting),
            absent=absent,
        )

    def measure(self, work: Work, setting: Setting) -> Sample:
        """Return what a run took, without what a run on a few tenants takes of CPU."""
        start = self._starts.get((work, setting))
        if start is None:
            start = self._starts[work, setting] = self._start(work, setting)
        return self.fleet.run(work, setting).without(start)

    def _start(self, work: Work, setting: Setting) -> Sample:
        runs = [self.fleet.run(work, setting, few=True) for _ in range(self._tries)]
        return sorted(runs, key=lambda each: each.cpu_seconds)[self._tries // 2]

    def best(self, work: Work, setting: Setting, threads: Sequence[int], tries: int) -> Setting:
        """Return the setting with the number of threads that did most in a second."""
        settings = [replace(setting, threads=number) for number in threads]
        rates = dict.fromkeys(settings, 0.0)
        for _ in range(tries):
            for each in settings:
                rates[each] = max(rates[each], self.fleet.run(work, each).rate)
        return max(settings, key=lambda each: rates[each])


def _measured(module: str, arguments: Sequence[str], fleet: Fleet, count: int) -> Sample:
    before = fleet.statements()
    done = run(python("-m", module, *arguments))
    seconds, cpu_seconds = map(float, done.output.split())
    return Sample(
        count=count,
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        statements=fleet.statements() - before - 1,
        whole_seconds=done.wall_seconds,
    )
