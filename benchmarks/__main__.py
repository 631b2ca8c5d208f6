"""``python -m benchmarks``: measure, and print one table."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import click

from benchmarks import queueing
from benchmarks.bookkeeping import open_books
from benchmarks.fleet import Fleet, Setting, make_fleet
from benchmarks.measuring import Round, installed, python, run
from benchmarks.modes import find_modes
from benchmarks.parts import measure_parts
from benchmarks.suite import Suite
from benchmarks.tables import Row, Wanted, table, title
from benchmarks.ways import Section

#: A start takes a fraction of a second and is noisy: more rounds of it.
_STARTS_PER_ROUND = 3
_EXECUTIONS, _FEWER_EXECUTIONS = 10_000, 3_000
_WIDE, _NARROW = 10_000, 1_000
#: A wide run takes ten seconds, and its memory hardly differs from the next one's.
_MEMORY_ROUNDS = 2

Figures = Sequence[Mapping[str, float]]


@click.command()
@click.option("--tenants", default=2000, show_default=True, type=click.IntRange(20, 9999))
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--quick", is_flag=True, help="Only what the essential ratios need.")
def main(tenants: int, rounds: int, quick: bool) -> None:  # noqa: FBT001 - as click calls it
    """Measure cronrunner against what would be written without it."""
    began = time.monotonic()
    with ExitStack() as stack:
        _say(f"making {tenants:,} tenants, twice")
        fleet = stack.enter_context(make_fleet(tenants))
        encrypted = stack.enter_context(make_fleet(tenants, tls=True))
        suite = Suite(
            fleet=fleet,
            encrypted=encrypted,
            modes=find_modes(fleet),
            broker=None if quick else stack.enter_context(_broker()),
            quick=quick,
            say=_say,
        )
        _say("warming up, and finding the best numbers of threads")
        rows = _compared(suite.sections(), rounds)
        _say("bookkeeping")
        rows += _bookkeeping(fleet, rounds, _FEWER_EXECUTIONS if quick else _EXECUTIONS)
        if not quick:
            rows += [*_memory(fleet, suite.modes.best.setting), *_starts(rounds)]
            rows += _parts(fleet, rounds)
        version = fleet.server.execute("SELECT VERSION()")[0][0]
    minutes = (time.monotonic() - began) / 60
    print(f"{tenants:,} tenants, {rounds} rounds, {minutes:.0f} minutes; {_machine(version)}\n")
    print(table(rows))


@contextmanager
def _broker() -> Iterator[str | None]:
    if not queueing.is_there():
        yield None
        return
    with queueing.Redis() as redis:
        yield redis.url


def _compared(sections: Sequence[Section], count: int) -> list[Row]:
    """Let each section have its turn in each round; the ratios come last."""
    rounds: list[Round] = []
    for number in range(count):
        samples: Round = {}
        for section in sections:
            _say(f"round {number + 1} of {count}: {section.title}")
            samples = {**samples, **dict(section.turn(backwards=number % 2 == 1))}
        rounds.append(samples)
    rows = [row for section in sections for row in section.rows(rounds)]
    rows += _process_starts(sections, rounds)
    rows.append(title("ratios, each within a round"))
    return rows + [row for section in sections for row in section.ratio_rows(rounds)]


def _process_starts(sections: Sequence[Section], rounds: Sequence[Round]) -> Iterator[Row]:
    """Show what was left out of the rows of two processes."""
    for way in (way for section in sections for way in section.ways):
        starts = [each[way.key].start_seconds for each in rounds if way.key in each]
        if any(starts):
            values = tuple(seconds * 1000 for seconds in starts)
            name = f"left out: the start of the processes ({way.name})"
            yield Row(name=name, unit="ms", values=values)


def _bookkeeping(fleet: Fleet, count: int, executions: int) -> Iterator[Row]:
    with open_books(fleet, executions) as books:
        books.measure()
        rounds = [books.measure() for _ in range(count)]
    yield title(f"CPU per execution of all bookkeeping, {executions:,} executions, one thread")
    name = "ledger, events, log, metrics and watchdog"
    yield _row(f"{name}; SQLite", "ms", rounds, "sqlite", Wanted(at_most=0.08))
    yield _row(f"{name}; MariaDB", "ms", rounds, "mariadb", Wanted(at_most=0.2))
    yield _row("the runner's own turns, not counted above", "ms", rounds, "runner")


def _memory(fleet: Fleet, setting: Setting) -> Iterator[Row]:
    _say(f"memory: making {_WIDE:,} tenants")
    fleet.server.create_databases(f"wide_{number:05d}" for number in range(_WIDE))
    found = []
    # The first run makes the ledger, which takes a library that later ones do not load.
    for number in range(_MEMORY_ROUNDS + 1):
        _say(f"memory, round {number} of {_MEMORY_ROUNDS}")
        (narrow,) = fleet.resident_megabytes("wide_00???", (_NARROW,), setting)
        early, late = fleet.resident_megabytes("wide_*", (_NARROW, _WIDE), setting)
        found.append(
            {"late": late, "narrow": narrow, "within": late - early, "between": late - narrow}
        )
    del found[0]
    less = Wanted(at_most=10)
    yield title("resident memory")
    yield _row(f"a run of {_NARROW:,} tenants, at its end", "MB", found, "narrow")
    yield _row(f"a run of {_WIDE:,} tenants, at its end", "MB", found, "late")
    yield _row("the second less the first", "MB", found, "between", less)
    name = f"within the second, from tenant {_NARROW:,} to tenant {_WIDE:,}"
    yield _row(name, "MB", found, "within", less)


def _starts(rounds: int) -> Iterator[Row]:
    _say("starts")
    found = [_start() for _ in range(rounds * _STARTS_PER_ROUND)]
    yield title("starts")
    yield _row('`python -c "import click"`', "ms", found, "click")
    yield _row("`cronrunner --help`", "ms", found, "help")
    yield _row("`--help` / `import click`", "times", found, "ratio", Wanted(at_most=2.5))


def _start() -> Mapping[str, float]:
    of_click = run(python("-c", "import click")).wall_seconds * 1000
    of_help = run([installed("cronrunner"), "--help"]).wall_seconds * 1000
    return {"click": of_click, "help": of_help, "ratio": of_help / of_click}


def _parts(fleet: Fleet, rounds: int) -> Iterator[Row]:
    _say("parts")
    found = measure_parts(fleet, rounds)
    driver = "the driver: connect, statement, commit, quit"
    yield title("CPU of single parts, each alone")
    yield _row(driver, "ms", found, "driver")
    yield _row("the ledger (SQLite): claim and outcome, in groups of 16", "ms", found, "ledger")
    yield _row("a log line", "ms", found, "log")


def _row(name: str, unit: str, found: Figures, key: str, wanted: Wanted | None = None) -> Row:
    values = tuple(each[key] for each in found)
    return Row(name=name, unit=unit, values=values, wanted=wanted)


def _machine(version: str) -> str:
    python_version = platform.python_version()
    return f"{os.cpu_count()} cores, Python {python_version}, MariaDB {version} on the loopback"


def _say(text: str) -> None:
    click.echo(text, err=True)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
