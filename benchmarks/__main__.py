"""``python -m benchmarks``: measure, and print one table."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import click

from benchmarks.fleet import Fleet, make_fleet
from benchmarks.measuring import Row, column, installed, python, ratio, run, table
from benchmarks.parts import measure_parts

#: The classic loop takes 20 ms and more for a tenant: it is run on so many, and scaled.
_SAMPLE = 100
#: A start takes a fraction of a second and is noisy: more rounds of it.
_STARTS_PER_ROUND = 3

Round = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loop:
    """One process of `benchmarks.loops`; all but the first without its start."""

    whole_seconds: float
    seconds: float
    cpu_seconds: float


@click.command()
@click.option("--tenants", default=1000, show_default=True, type=click.IntRange(10, 9999))
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
def main(tenants: int, rounds: int) -> None:
    """Measure cronrunner against what would be written without it."""
    with make_fleet(tenants) as fleet:
        _say("warming up")
        fleet.run()
        throughput = []
        for number in range(rounds):
            _say(f"throughput, round {number + 1} of {rounds}")
            throughput.append(_throughput(fleet))
        _say("memory")
        memory = [_memory(fleet) for _ in range(rounds)]
        _say("starts")
        starts = [_starts() for _ in range(rounds * _STARTS_PER_ROUND)]
        _say("parts")
        parts = measure_parts(fleet, rounds)
        version = fleet.server.execute("SELECT VERSION()")[0][0]
    print(f"{tenants:,} tenants, {rounds} rounds; {_machine(version)}\n")
    print(table([*_rows(throughput, memory, starts, tenants), *_part_rows(parts)]))


def _throughput(fleet: Fleet) -> Round:
    """Let each of the three have its turn."""
    tenants = len(fleet.tenants)
    sample = min(tenants, _SAMPLE)
    done, seconds = fleet.run()
    of_one, _ = fleet.run(only=fleet.tenants[0])
    _, scattered_seconds = fleet.run(config="all-cpus.yaml")
    classic = _loop(fleet, "classic", sample)
    raw = _loop(fleet, "raw", tenants)
    # The start of the classic loop's process is paid once, however many tenants it has.
    classic_whole = classic.whole_seconds + classic.seconds * (tenants / sample - 1)
    return {
        "cronrunner": tenants / seconds,
        "scattered": tenants / scattered_seconds,
        "classic": sample / classic.seconds,
        "raw": tenants / raw.seconds,
        "cronrunner whole": tenants / done.wall_seconds,
        "classic whole": tenants / classic_whole,
        "raw whole": tenants / raw.whole_seconds,
        "cronrunner cpu": (done.cpu_seconds - of_one.cpu_seconds) * 1000 / (tenants - 1),
        "classic cpu": classic.cpu_seconds * 1000 / sample,
        "raw cpu": raw.cpu_seconds * 1000 / tenants,
    }


def _loop(fleet: Fleet, name: str, tenants: int) -> _Loop:
    done = run(python("-m", "benchmarks.loops", name, str(tenants), fleet.server.url()))
    seconds, cpu_seconds = map(float, done.output.split())
    return _Loop(whole_seconds=done.wall_seconds, seconds=seconds, cpu_seconds=cpu_seconds)


def _memory(fleet: Fleet) -> Round:
    tenants = len(fleet.tenants)
    early, late = fleet.resident_megabytes((tenants // 10, tenants))
    return {"early": early, "late": late, "growth": late - early}


def _starts() -> Round:
    return {
        "click": run(python("-c", "import click")).wall_seconds * 1000,
        "help": run([installed("cronrunner"), "--help"]).wall_seconds * 1000,
    }


def _rows(
    throughput: Sequence[Round], memory: Sequence[Round], starts: Sequence[Round], tenants: int
) -> list[Row]:
    per_second = "tenants/s"
    early = f"tenant {tenants // 10:,} to tenant {tenants:,}"
    return [
        Row("cronrunner, the run", per_second, column(throughput, "cronrunner")),
        Row("the same with `one_cpu: false`", per_second, column(throughput, "scattered")),
        Row("the classic loop", per_second, column(throughput, "classic")),
        Row("raw PyMySQL, 8 threads", per_second, column(throughput, "raw")),
        Row(
            "cronrunner / classic loop",
            "times",
            ratio(throughput, "cronrunner", "classic"),
            "15 or more",
        ),
        Row(
            "the same, whole processes",
            "times",
            ratio(throughput, "cronrunner whole", "classic whole"),
        ),
        Row("cronrunner / raw PyMySQL", "times", ratio(throughput, "cronrunner", "raw")),
        Row(
            "the same, whole processes",
            "times",
            ratio(throughput, "cronrunner whole", "raw whole"),
        ),
        Row("CPU per tenant, cronrunner", "ms", column(throughput, "cronrunner cpu")),
        Row("CPU per tenant, classic loop", "ms", column(throughput, "classic cpu")),
        Row("CPU per tenant, raw PyMySQL", "ms", column(throughput, "raw cpu")),
        Row(f"resident memory, {early}", "MB more", column(memory, "growth"), "less than 20"),
        Row("resident memory at the end", "MB", column(memory, "late")),
        Row('`python -c "import click"`', "ms", column(starts, "click")),
        Row("`cronrunner --help`", "ms", column(starts, "help")),
        Row("`--help` / `import click`", "times", ratio(starts, "help", "click"), "2.5 or less"),
    ]


def _part_rows(parts: Sequence[Round]) -> list[Row]:
    return [
        Row(
            "CPU of the driver alone: connect, statement, commit, quit",
            "ms",
            column(parts, "driver"),
        ),
        Row("CPU of the ledger alone (SQLite): claim and outcome", "ms", column(parts, "ledger")),
        Row("CPU of a log line alone", "ms", column(parts, "log")),
    ]


def _machine(version: str) -> str:
    python_version = platform.python_version()
    return f"{os.cpu_count()} cores, Python {python_version}, MariaDB {version} on the loopback"


def _say(text: str) -> None:
    click.echo(text, err=True)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
